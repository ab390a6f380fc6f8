"""The runs that the tests look at, made by the real commands, several at a time."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = sorted(path.stem for path in (ROOT / "conf/model").glob("*.yaml"))
OBJECTIVE = (
    *("data.mixup_alpha=0.2", "data.cutmix_alpha=1.0"),
    *("loss.label_smoothing=0.1", "loss.class_weights=balanced"),
)
PIPELINES = {
    "krizhevsky_2012": ("experiment=krizhevsky_2012_imagenette",),
    "caffenet_2014": ("experiment=caffenet_2014_imagenette",),
    "one_weird_trick_2014": ("experiment=one_weird_trick_2014_imagenette",),
    "article": (
        *("experiment=ungrouped_imagenette", "data.crop=random"),
        *("data.rotation=10", "data.scaling=0.1", "data.jitter=0.4", *OBJECTIVE, "model.norm=batch"),
    ),
}
"""One recipe for each input pipeline; the last with the transforms of the article, `OBJECTIVE`, batch normalisation."""
CLASSES, IMAGES, BATCH = 2, 164, 4
"""Of the photographs: 41 steps."""
FIRST, WATCHED = 5, 30
"""The first step in which synchronisations are counted, and the number of these steps."""
SECONDS = 240
MEMORY_LIMITED = """
import runpy, sys, torch
torch.cuda.set_per_process_memory_fraction(0.02)
sys.path.insert(0, "src")
sys.argv[0] = "src/train.py"
runpy.run_path("src/train.py", run_name="__main__")
"""
REPLAYED = ("deterministic", "half", "changed")
"""Runs that are made with `compile=cuda-graph`, too."""
TWO_RANKS = {
    "ddp": "{_target_: lightning.pytorch.strategies.DDPStrategy, process_group_backend: gloo}",
    "towers": "{_target_: tests.gpu.strategies.TowersThroughGloo}",
}
"""Strategies of two ranks that share a device, as two nodes with one device each."""


@dataclass(frozen=True)
class Run:
    folder: Path
    status: int
    output: str

    def losses(self) -> list[float]:
        from alexnet_lab.runs.metric_rows import read_rows

        self.assert_finished()
        rows = read_rows(self.folder / "metrics.csv")
        return [row["train/loss_step"] for row in rows if "train/loss_step" in row]

    def weights(self) -> dict[str, Any]:
        import torch

        self.assert_finished()
        path = self.folder / "checkpoints/last.ckpt"
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        return content

    def watched(self) -> dict[str, Any]:
        """What `Waits` of benchmarks/_callbacks.py has found."""
        self.assert_finished()
        found: dict[str, Any] = json.loads((self.folder / "watched.json").read_text())
        return found

    def assert_finished(self) -> None:
        assert self.status == 0, self.output[-3000:]


class Runs:
    """`runs[NAME]` waits for a run."""

    def __init__(self, script: Any, folder: Path, on_cpu: bool) -> None:
        self._script, self._folder, self.on_cpu = script, folder, on_cpu
        self.trainer = "trainer=cpu" if on_cpu else "trainer=gpu"
        # Images in a batch, steps per epoch, and the network's input, which is as published on a GPU.
        self.batch, self.steps, self.side = (4, 4, ("model.image_size=67",)) if on_cpu else (32, 20, ())
        self._store = folder / "store"
        self._pool = ThreadPoolExecutor(1 if on_cpu else 8)
        self._store_made = self._pool.submit(self._make_store)
        self._ended = {name: self._pool.submit(run) for name, run in self._all().items()}

    def __getitem__(self, name: str) -> Run:
        return self._ended[name].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _all(self) -> dict[str, Callable[[], Run]]:
        """The longest first."""
        exact, same = self._exact(), self._deterministic()
        ddp = ("trainer=ddp_cpu" if self.on_cpu else "trainer=ddp", "trainer.devices=1")
        half = "trainer.precision=bf16-mixed" if self.on_cpu else "trainer.precision=16-mixed"
        on_device = {
            "float64": exact,
            "deterministic": same,
            "again": same,
            "16-mixed": (*self._small(), half, "checkpoints=none"),
            "grey": self._grey(),
            "batch norm": (*exact, "model.norm=batch"),
            "changed": self._changed(),
            "tuned": self._tuned(),
            "statistics": (*same, "callbacks=layer_statistics", "callbacks.layer_statistics.every_n_steps=7"),
            **{network: self._of_network(network) for network in NETWORKS},
        }
        if not self.on_cpu:
            on_device |= {"half": (*same, "trainer.precision=bf16-mixed")}
            on_device |= {f"{name} graph": (*on_device[name], "compile=cuda-graph") for name in REPLAYED}
        return {
            "float64 on the CPU": partial(self._train, "float64 on the CPU", *exact, "trainer=cpu", threads=8),
            "killed and continued": partial(self._killed_and_continued, "killed and continued", *same),
            "moved": partial(self._moved_from_the_cpu, "moved", *same),
            "one rank": partial(self._train, "one rank", *same, *ddp),
            **{name: partial(self._two_ranks, name, strategy) for name, strategy in TWO_RANKS.items()},
            "batch norm over ranks": partial(
                self._two_ranks, "batch norm over ranks", TWO_RANKS["ddp"], "model.norm=batch"
            ),
            **{name: partial(self._train, name, *choices, self.trainer) for name, choices in on_device.items()},
            **{name: partial(self._on_photographs, name, *recipe) for name, recipe in PIPELINES.items()},
            **({} if self.on_cpu else {"too large": self._too_large}),
        }

    def _small(self) -> tuple[str, ...]:
        """Original network, one epoch."""
        return (
            *("model=alexnet_original", *self.side, "data=synthetic", "data.num_classes=10"),
            *("data.val_size=8", "data.test_size=8", "data.eval_batch_size=8", f"data.batch_size={self.batch}"),
            *(f"data.train_size={self.batch * self.steps + 1}", "optimizer=sgd_2012", "optimizer.lr=0.001"),
            *("trainer.precision=32-true", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"),
            *("logger=none", "callbacks.pictures=null", "test_on=none"),
        )

    def _exact(self) -> tuple[str, ...]:
        """Without a resize, whose float32 products each device rounds differently."""
        stored = "data.stored_size=${model.image_size}"
        whole = f"data.train_size={self.batch * self.steps}"
        return (*self._small(), *OBJECTIVE, whole, stored, "model.dropout=0", "trainer.precision=64-true")

    def _deterministic(self) -> tuple[str, ...]:
        return (*self._small(), *OBJECTIVE, "trainer.deterministic=true", "trainer.max_epochs=2")

    def _of_network(self, name: str) -> tuple[str, ...]:
        few = (f"data.batch_size={self.batch}", f"data.train_size={2 * self.batch}", "model.image_size=67")
        sized = few if self.on_cpu and name != "lenet" else few[:2]
        small = [one for one in self._small() if not one.startswith("model")]
        return (f"model={name}", *small, *sized, "trainer.deterministic=true", "checkpoints=none")

    def _changed(self) -> tuple[str, ...]:
        """Batch normalisation, a frozen layer, and factors of the learning rate with a fused optimizer."""
        small = [one for one in self._deterministic() if not one.startswith("optimizer")]
        changes = ("model.norm=batch", "freeze=[conv1]", "layers=[{pattern: last, lr: 10, weight_decay: 0}]")
        return (*small, *changes, "optimizer=sgd", "optimizer.fused=true", "optimizer.lr=0.001")

    def _tuned(self) -> tuple[str, ...]:
        """A learning-rate range test."""
        small = [one for one in self._small() if not one.startswith("test_on")]
        return (*small, "tune=lr", "tune.start=1e-4", "tune.steps=40")

    def _grey(self) -> tuple[str, ...]:
        small = [one for one in self._small() if not one.startswith(("model=", "optimizer"))]
        adam = ("optimizer=adamw", "optimizer.fused=true", "trainer.precision=bf16-mixed", "checkpoints=none")
        return ("model=alexnet_d2l", *small, "data.channels=1", "data.mean=[0.5]", "data.std=[0.5]", *adam)

    def _on_photographs(self, name: str, *recipe: str) -> Run:
        """An epoch that is watched and in which nothing is logged or printed; with pictures, as by default."""
        watch = {"file": self._folder / name / "watched.json", "first": FIRST, "steps": WATCHED}
        options = ", ".join(f"{key}: {value}" for key, value in watch.items())
        choices = (
            *(*recipe, f"+callbacks.watch={{_target_: benchmarks._callbacks.Waits, {options}}}"),
            *(f"data.dir={self._store}", f"data.num_classes={CLASSES}", f"data.batch_size={BATCH}"),
            *("data.eval_batch_size=8", "data.val_size=0", "trainer.max_epochs=1", "trainer.log_every_n_steps=1000"),
            *("logger=none", "test_on=none", "checkpoints=none"),
            *("callbacks.pictures.images=10", "callbacks.progress=null"),
        )
        self._store_made.result()
        return self._train(name, *choices, self.trainer)

    def _too_large(self) -> Run:
        """A batch that does not fit into a fiftieth of the GPU's memory, so the other runs keep theirs."""
        large = ("data.batch_size=4096", "data.train_size=4096")
        return self._train("too large", *self._small(), *large, self.trainer, program=("-c", MEMORY_LIMITED))

    def _train(self, name: str, *choices: str, threads: int = 1, program: tuple[str, ...] = ("src/train.py",)) -> Run:
        return self._command(name, *choices, f"hydra.run.dir={self._folder / name}", threads=threads, program=program)

    def _command(self, name: str, *choices: str, threads: int = 1, program: tuple[str, ...] = ("src/train.py",)) -> Run:
        ended = self._script.finish(self._start(*choices, program=program, threads=threads), SECONDS)
        return Run(self._folder / name, ended.returncode, ended.stdout + ended.stderr)

    def _start(
        self, *choices: str, program: tuple[str, ...] = ("src/train.py",), threads: int = 1, **more: str
    ) -> subprocess.Popen:
        number = 1 if self.on_cpu else threads
        environment = {**self._script.environment, "OMP_NUM_THREADS": str(number), **more}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
        # On a GPU in interpreters of their own, as a user's run.
        started: subprocess.Popen = self._script.start(
            *choices, program=program, fresh=not self.on_cpu, env=environment
        )
        return started

    def _killed_and_continued(self, name: str, *choices: str) -> Run:
        folder = self._folder / name
        often = "checkpoints.every_minutes=0.0005"
        process = self._start(*choices, often, self.trainer, f"hydra.run.dir={folder}")
        metrics, last = folder / "metrics.csv", folder / "checkpoints/last.ckpt"

        def in_the_second_epoch() -> bool:
            return last.exists() and metrics.read_text().count("\n") > self.steps + self.steps // 2

        self._script.wait(process, in_the_second_epoch, "it was killed", SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return self._command(name, f"resume={folder}")

    def _moved_from_the_cpu(self, name: str, *choices: str) -> Run:
        """An epoch on the CPU, and the second on the device."""
        folder = self._folder / name
        first = self._command(
            name, *choices, "trainer=cpu", "trainer.max_epochs=1", f"hydra.run.dir={folder}", threads=4
        )
        return first if first.status else self._command(name, f"resume={folder}", self.trainer, "trainer.max_epochs=2")

    def _make_store(self) -> None:
        """Photographs of noise in a uint8 store."""
        generator, tree = np.random.default_rng(0), self._folder / "photographs"
        for split, images in (("train", IMAGES), ("val", 40)):
            for place in range(images):
                path = tree / split / f"n0000000{place % CLASSES}" / f"{place:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(generator.integers(0, 256, (16, 16, 3), np.uint8)).resize((256, 256)).save(path)
        choices = ("data=imagenette", f"data.num_classes={CLASSES}", "data.val_size=0", f"data.dir={self._store}")
        prepare = self._start(*choices, f"source={tree}", "workers=1", program=("src/prepare.py",))
        ended = self._script.finish(prepare)
        assert ended.returncode == 0, ended.stderr

    def evaluated_on_the_cpu(self, run: Run) -> Run:
        run.assert_finished()
        checkpoint = f"checkpoint={run.folder}/checkpoints/last.ckpt"
        return self._command("evaluated", checkpoint, "trainer=cpu", threads=4, program=("src/evaluate.py",))

    def described_cost(self) -> dict[str, Any]:
        """Of the deterministic run."""
        file = self._folder / "cost.json"
        choices = (*self._deterministic(), self.trainer, "what=cost", f"out={file}")
        self._command("cost", *choices, program=("src/describe.py",)).assert_finished()
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def predicted(self, run: Run, accelerator: str) -> list[dict[str, Any]]:
        """Classes of photographs, and a sheet with the evidence for them."""
        run.assert_finished()
        self._store_made.result()
        folder = self._folder / f"predicted by {accelerator}"
        folder.mkdir()
        files = (f"out={folder / 'classes.json'}", "explain=gradcam", f"sheet={folder / 'sheet.png'}")
        choices = (
            *(f"checkpoint={run.folder}/checkpoints/last.ckpt", f"accelerator={accelerator}"),
            *(f"images={self._folder / 'photographs/val'}", *files),
        )
        self._command(folder.name, *choices, threads=4, program=("src/predict.py",)).assert_finished()
        with Image.open(folder / "sheet.png") as sheet:
            assert min(sheet.size) > 100
        found: list[dict[str, Any]] = json.loads((folder / "classes.json").read_text())["images"]
        return found

    def _two_ranks(self, name: str, strategy: str, *more: str) -> Run:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])  # free
        shared = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        shared |= {"MASTER_PORT": port, "TORCHELASTIC_RUN_ID": name, "GROUP_WORLD_SIZE": "2"}
        choices = (*self._exact(), *more, self.trainer, "trainer.num_nodes=2", f"trainer.strategy={strategy}")
        folder = f"hydra.run.dir={self._folder / name}"
        ranks = [self._start(*choices, folder, RANK=rank, GROUP_RANK=rank, **shared) for rank in ("0", "1")]
        ended = [self._script.finish(rank, SECONDS) for rank in ranks]
        output = "\n".join(one.stdout + one.stderr for one in ended)
        return Run(self._folder / name, max(abs(one.returncode) for one in ended), output)
