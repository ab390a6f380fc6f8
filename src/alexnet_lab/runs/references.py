"""What `checkpoint=` may name: a file or folder of a run, an artifact of W&B, networks that were trained elsewhere.

Each kind has a function that returns the content of a checkpoint, whatever the file holds.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from alexnet_lab import places
from alexnet_lab.config.advice import did_you_mean
from alexnet_lab.config.arguments import RUNS
from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.errors import UserError
from alexnet_lab.published.as_checkpoint import as_checkpoint
from alexnet_lab.published.torchvision_weights import (
    check_hash,
    published_file,
    torchvision_checkpoint,
    torchvision_state,
)
from alexnet_lab.runs import folders
from alexnet_lab.runs.checkpoint_file import check_caffe_file, read_file

WANDB = "wandb:"
ARTIFACTS = "logs/wandb_artifacts"
"""Downloaded checkpoints, below the home."""
TORCHVISION = "torchvision"
OF_CAFFE = ("bvlc_alexnet", "caffenet")
WORDS = (TORCHVISION, *OF_CAFFE, "wandb")
"""What a reference may begin with that is not a path."""
CAFFE_SUFFIX = ".caffemodel"
OF_A_RUN = {"config", "state_dict", "global_step"}
EXPORTED = {"state_dict", "model", "preprocessing"}


class Found(NamedTuple):
    content: dict[str, Any]
    """The content of a run's checkpoint, see `checkpoint.Content`."""
    file: Path | None
    """The file that was named, or that is in the folder; None if the weights were downloaded by name."""


def find(reference: str, option: str) -> Found:
    """The network that `OPTION=REFERENCE` names; tensors are mapped from the file where its format allows that.

    Raises:
        UserError: nothing is there, or it is no network that can be used; see also `read_file`.
    """
    given = named(option, reference)
    if reference == TORCHVISION:
        path, run = published_file(given)
        return Found(_of_file(path, f"{given}: {path}", run), None)
    if reference.startswith(WANDB):
        path = _downloaded(reference, option)
        return Found(_of_file(path, named(option, path), path.name), None)
    kind, colon, file = reference.partition(":")
    if kind in OF_CAFFE and colon:
        path = Path(file)
        return Found(_of_caffe(kind, path, given), path)
    path = Path(reference)
    if path.is_dir():
        path = _in_folder(path, given, option)
    if not path.exists():
        raise UserError(f"{given}: there is no such file{_hint(reference, option)}")
    return Found(_of_file(path, named(option, path), path.name), path)


def named(option: str, reference: str | Path) -> str:
    """The beginning of a message: `OPTION=REFERENCE`, or the reference alone if there is no option."""
    return f"{option}={reference}" if option else str(reference)


def _downloaded(reference: str, option: str) -> Path:
    from alexnet_lab.loggers.wandb_artifacts import download  # here, since wandb takes a second to import

    return download(reference, places.home() / ARTIFACTS, option or "path")


def _in_folder(folder: Path, named: str, option: str) -> Path:
    """The best checkpoint of the run in `folder`, or its last one; `folder` may be that of its checkpoints."""
    for name in (folders.BEST, folders.LAST, Path(folders.BEST).name, Path(folders.LAST).name):
        if (folder / name).is_file():
            return folder / name
    wanted = "the folder of a run" + (", or one that rows= has written" if option == "against" else "")
    raise UserError(f"{named}: the folder has neither {folders.BEST} nor {folders.LAST}; name {wanted}")


def _hint(reference: str, option: str) -> str:
    if "://" in reference:
        return "; download it first, and name the file"
    found = re.search(r"([^/:]+)(:|$)", reference)
    runs = places.home() / RUNS
    if (runs / reference).is_dir():
        return f", did you mean {RUNS}/{reference}?"
    # `init` also takes the name of a run, which was searched for where the command line was read.
    names = [run.name for run in runs.glob("*")] if option == "init" else []
    hint = did_you_mean(found[1], [*WORDS, *names]) if found else ""
    return hint or f"; name one such as {RUNS}/NAME/checkpoints/best.ckpt"


def _of_caffe(kind: str, path: Path, named: str) -> dict[str, Any]:
    """The content of a `.caffemodel` of the network `kind`."""
    from alexnet_lab.published.caffe_networks import caffe_checkpoint  # not needed by others

    if not path.is_file():
        raise UserError(f"{named}: there is no such file; name one such as {kind}:{kind}.caffemodel")
    try:
        check_caffe_file(path, named)
        return caffe_checkpoint(kind, path, named)
    except OSError as error:
        raise UserError(f"{named}: {error.filename}: {error.strerror}") from error


def _of_file(path: Path, named: str, run: str) -> dict[str, Any]:
    """The content of a file that torch.save or safetensors has written; messages begin with `named`.

    run: the name of the run if the file records none.
    """
    if path.suffix == CAFFE_SUFFIX:
        raise UserError(
            f"{named}: a file of Caffe; name its network: {' or '.join(f'{kind}:FILE' for kind in OF_CAFFE)}"
        )
    content = read_file(path, named)
    check_hash(path, named)
    if isinstance(content, Mapping):
        if content.keys() >= OF_A_RUN:
            return {**content}
        if content.keys() >= EXPORTED:
            return _exported(content, run, named)
    if state := torchvision_state(content):
        return torchvision_checkpoint(state, run)
    raise UserError(
        f"{named}: it records no configuration; only checkpoints of AlexNet Lab's runs, files of its export and state "
        "dicts of torchvision's AlexNet can be used"
    )


def _exported(content: Mapping[str, Any], run: str, named: str) -> dict[str, Any]:
    """The content of a file of `export format=state_dict` or `safetensors`."""
    for key in EXPORTED:
        if not isinstance(content[key], Mapping):
            raise UserError(f"{named}: not a file of AlexNet Lab's export: {key} is not a dictionary")
    Preprocessing.of(content["preprocessing"])
    return as_checkpoint(run, content["model"], content["preprocessing"], content["state_dict"])
