"""Fine-tuning compared with training from nothing at the same budget, on real images.

A network is trained on one half of the classes (the first half, sorted by name). Then the other half is learned from
few images: from nothing, and from that network's weights. All runs of the second part see the same images for the same
number of steps and are tested on the same images, those in `val`; the figure is `test/top1` of the last weights, over
several seeds. Every run is the real command in a process of its own, several at once. `--keep` keeps the runs, which
`src/results.py add=RUN` records.

    from nothing         as experiment=imagenette_short trains: a learning rate of 0.015, one cycle
    same recipe          the same, from the weights of the first network: only the start differs
    fine-tuned           experiment=finetune: a learning rate of 0.001, ten times as much in the last layer
    fine-tuned, frozen   the same, and the convolutions are not trained

It needs real images: `--images`, or ALEXNET_LAB_IMAGES, names a folder with `train/<class>/*` and `val/<class>/*`, or
with the two tars of Imagenette. All validation images of the second half are used.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _report import ROOT, report

ONE_CYCLE = ("scheduler=one_cycle", "optimizer.lr=0.015", "layers=null")
VARIANTS = {
    "from nothing": ("init=null", *ONE_CYCLE),
    "same recipe": ("init=source", *ONE_CYCLE),
    "fine-tuned": ("init=source",),
    "fine-tuned, frozen": ("init=source", "freeze=[features]"),
}
RUNS = Path("logs/train/runs")
NOTHING, TUNED = "from nothing", "fine-tuned"
RUN = ("logger=none", "callbacks.pictures=null", "test_on=last")


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy of fine-tuning and of training from nothing.")
    parser.add_argument("--quick", action="store_true", help="few small images, one seed; checks only that it works")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--images", type=Path, default=os.environ.get("ALEXNET_LAB_IMAGES"), help="see above")
    parser.add_argument("--train", type=int, default=250, help="training images of each class of the second half")
    parser.add_argument("--epochs", type=int, default=40, help="epochs of the second part")
    parser.add_argument("--source-epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--at-once", type=int, help="runs at once; default: one for each three cores")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the runs below it")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write the figures there")
    given = parser.parse_args()
    if given.images is None:
        sys.exit("finetune needs real images: --images FOLDER, or ALEXNET_LAB_IMAGES")
    if given.quick:
        given.train, given.epochs, given.source_epochs, given.seeds = 8, 1, 1, 1
    cores = len(os.sched_getaffinity(0))
    given.at_once = given.at_once or max(1, cores // 3)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ALEXNET_LAB_HOME"] = folder
        measure(Path(folder), given, threads=max(1, cores // given.at_once))
        if given.keep:
            shutil.copytree(Path(folder, RUNS), given.keep / RUNS, ignore=shutil.ignore_patterns("*.ckpt"))


def measure(folder: Path, given: argparse.Namespace, threads: int) -> None:
    started = time.perf_counter()
    halves = split(unpacked(given.images, folder), folder, given.train, 8 if given.quick else None)
    stores = {half: folder / f"{half}-store" for half in halves}
    with ThreadPoolExecutor() as pool:
        made = [
            pool.submit(
                command, "prepare", threads, *("data=image_folder", f"source={halves[half]}"), f"data.dir={store}"
            )
            for half, store in stores.items()
        ]
        for one in made:
            one.result()
    size = ("model.image_size=63",) if given.quick else ()
    common = (*RUN, *size, f"trainer={'gpu' if given.device == 'cuda' else 'cpu'}", f"data.workers={threads}")
    source = (
        *("experiment=finetune", f"data.dir={stores['first']}", *VARIANTS[NOTHING], *common),
        f"trainer.max_epochs={given.source_epochs}",
    )
    command("train", threads, *source, "run=source")
    second = ("experiment=finetune", f"data.dir={stores['second']}", *common, "checkpoints=none")
    second += (f"trainer.max_epochs={given.epochs}", f"trainer.check_val_every_n_epoch={min(10, given.epochs)}")
    runs = {
        (name, seed): (*second, *variant, f"seed={seed}", f"run={name.replace(', ', '-').replace(' ', '-')}-{seed}")
        for name, variant in VARIANTS.items()
        for seed in range(given.seeds)
    }
    begun = time.perf_counter()
    with ThreadPoolExecutor(given.at_once) as pool:
        done = [pool.submit(command, "train", threads, *words) for words in runs.values()]
        for one in done:
            one.result()
    found = {key: result(folder / RUNS / words[-1].removeprefix("run=")) for key, words in runs.items()}
    write(
        found,
        result(folder / RUNS / "source"),
        runs,
        source,
        folder,
        given,
        [begun - started, time.perf_counter() - begun],
    )


def unpacked(images: Path, folder: Path) -> Path:
    """A folder with `train` and `val`; those of the archives in `images`, if there are any."""
    archives = sorted(images.glob("imagenette*.tar"))
    if not archives:
        return images
    for archive in archives:
        with tarfile.open(archive) as tar:
            tar.extractall(folder / "images", filter="data")
    return folder / "images"


def split(images: Path, folder: Path, train: int, few: int | None) -> dict[str, Path]:
    """The two halves of the classes as folders: all training images of the first, `train` of each of the second."""
    names = sorted(path.name for path in (images / "train").iterdir() if path.is_dir())
    for place, name in enumerate(names):
        half = "first" if place < len(names) // 2 else "second"
        for part, most in (("train", few if half == "first" else train), ("val", few)):
            if part == "val" and half == "first":
                continue  # a part of the training images is held out instead
            for path in sorted((images / part / name).iterdir())[:most]:
                target = folder / half / part / name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    return {half: folder / half for half in ("first", "second")}


def command(name: str, threads: int, *arguments: str) -> None:
    """Run `src/NAME.py`; it must succeed."""
    words = [sys.executable, str(ROOT / "src" / f"{name}.py"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{' '.join(words)}\n{ended.stdout}\n{ended.stderr}")


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def write(
    found: dict, source: dict, runs: dict, first: tuple, folder: Path, given: argparse.Namespace, seconds: list
) -> None:
    """Print the table, the commands and the figures, and write them to `--out`."""
    rows, figures = [], {"source_top1": source["final"]["val/top1"], "seeds": given.seeds}
    for name in VARIANTS:
        top1 = [found[name, seed]["final"]["test/top1"] for seed in range(given.seeds)]
        spread = statistics.stdev(top1) if len(top1) > 1 else 0.0
        took = statistics.fmean(found[name, seed]["seconds"] for seed in range(given.seeds))
        figures |= {f"{name}, top-1": statistics.fmean(top1), f"{name}, std": spread, f"{name}, s": took}
        rows.append((name, f"{statistics.fmean(top1):.4f}", f"{spread:.4f}", " ".join(f"{one:.4f}" for one in top1)))
    error = {name: 1 - figures[f"{name}, top-1"] for name in VARIANTS}
    ratios = {"error_fine_tuned_vs_from_nothing": error[TUNED] / error[NOTHING] if error[NOTHING] else 1.0}
    figures |= {"prepare_and_source_s": seconds[0], "runs_s": seconds[1], "at_once": given.at_once}
    figures |= {"train_images": given.train, "epochs": given.epochs, "source_epochs": given.source_epochs}
    any_run = found[NOTHING, 0]
    figures |= {"val_images": any_run["images"]["val"], "images_per_run": any_run["images"]["train"] * given.epochs}
    commands = {"source": first, **{name: runs[name, 0] for name in VARIANTS}}
    lines = {name: readable(words, folder) for name, words in commands.items()}
    for name, line in lines.items():
        print(f"{name}: {line}")
    print(f"\n{any_run['hardware']['device']}, torch {any_run['versions']['torch']}")
    report("finetune", ("variant", "test/top1", "std", "by seed"), rows, ratios, figures)
    if given.out:
        content = {"benchmark": "finetune", "commands": lines, "rows": rows, "ratios": ratios, "figures": figures}
        content |= {key: any_run[key] for key in ("hardware", "versions", "git")}
        given.out.write_text(json.dumps(content, indent=1) + "\n")


def readable(words: tuple, folder: Path) -> str:
    """The command line without the benchmark's own folders."""
    line = " ".join(word for word in words if not word.startswith(("run=", "seed=", "data.workers")))
    return f"python src/train.py {re.sub(re.escape(str(folder)) + '/', '', line)}"


if __name__ == "__main__":
    main()
