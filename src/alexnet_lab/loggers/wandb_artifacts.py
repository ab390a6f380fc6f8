"""Checkpoints as versioned W&B artifacts: up at a run's end, and down again wherever a checkpoint is wanted."""

import logging
import re
from pathlib import Path

import wandb

from alexnet_lab.errors import UserError
from alexnet_lab.loggers.wandb_service import service

log = logging.getLogger(__name__)

PREFIX = "wandb:"
UPLOAD_SECONDS = 300
"""An upload that takes longer is given up."""
ANSWER_SECONDS = 20
"""For the server to answer a question."""
FORM = "wandb:ENTITY/PROJECT/ARTIFACT:best, or a version like :v0 in place of :best"


def upload(run: wandb.Run, checkpoint: Path) -> None:
    """Upload a checkpoint as the newest version of `model-RUN_ID`, alias `best`, and say how it is read back.

    It takes `UPLOAD_SECONDS` at most; a failure is a warning.
    """
    artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata={"run": run.name})
    try:
        artifact.add_file(str(checkpoint), name=checkpoint.name, policy="immutable", skip_cache=True)
        run.log_artifact(artifact, aliases=["best"]).wait(timeout=UPLOAD_SECONDS)
    except Exception as error:
        log.warning("W&B: the checkpoint is not uploaded (%s); it is %s", first_line(error), checkpoint)
        return
    log.info("W&B: checkpoint=%s%s/%s/%s:best", PREFIX, run.entity, run.project, artifact.name.partition(":")[0])


def download(reference: str, cache: Path) -> Path:
    """The checkpoint that `wandb:ENTITY/PROJECT/ARTIFACT:ALIAS` names, in a folder of its version below `cache`.

    Raises:
        UserError: it is written otherwise, there is no login, no answer, no such artifact, or no one checkpoint in it.
    """
    name = reference.removeprefix(PREFIX)
    if not re.fullmatch(r"[^/:]+/[^/:]+/[^/:]+:[^/:]+", name):
        raise UserError(f"checkpoint={reference}: an artifact is written {FORM}")
    try:
        with service():
            artifact = wandb.Api(timeout=ANSWER_SECONDS).artifact(name, type="model")
            folder = cache / artifact.entity / artifact.project / artifact.name.replace(":", "-")
            artifact.download(root=str(folder), skip_cache=True)
    except wandb.errors.UsageError as error:  # its AuthenticationError among them
        raise UserError(f"checkpoint={reference}: no login for W&B; `wandb login` first") from error
    except Exception as error:  # wandb's are of many kinds, and it reports a missing network as "busy"
        reasons = f"is there a network, and is the name right? ({first_line(error)})"
        raise UserError(f"checkpoint={reference}: W&B does not give it; {reasons}") from error
    files = sorted(folder.glob("*.ckpt"))
    if len(files) != 1:
        raise UserError(f"checkpoint={reference}: there are {len(files)} checkpoints in that artifact, not one")
    return files[0]


def first_line(error: Exception) -> str:
    """What an exception says, in a line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
