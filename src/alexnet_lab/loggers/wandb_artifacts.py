"""Checkpoints as versioned W&B artifacts: uploaded at the end of a run, downloaded by commands that read one."""

import logging
import re
from pathlib import Path

import wandb

from alexnet_lab.errors import UserError
from alexnet_lab.loggers.wandb_service import service

log = logging.getLogger(__name__)

PREFIX = "wandb:"
UPLOAD_SECONDS = 300
"""An upload that takes longer is abandoned."""
ANSWER_SECONDS = 20
"""Time limit for an answer of the server."""
FORM = "wandb:ENTITY/PROJECT/ARTIFACT:best, or a version such as :v0 instead of :best"


def upload(run: wandb.Run, checkpoint: Path) -> None:
    """Upload a checkpoint as the newest version of `model-RUN_ID`, alias `best`, and log how to read it back.

    Takes at most `UPLOAD_SECONDS`; a failure causes only a warning.
    """
    artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata={"run": run.name})
    try:
        artifact.add_file(str(checkpoint), name=checkpoint.name, policy="immutable", skip_cache=True)
        run.log_artifact(artifact, aliases=["best"]).wait(timeout=UPLOAD_SECONDS)
    except Exception as error:
        log.warning("W&B: the checkpoint %s was not uploaded (%s)", checkpoint, first_line(error))
        return
    log.info("W&B: checkpoint=%s%s/%s/%s:best", PREFIX, run.entity, run.project, artifact.name.partition(":")[0])


def download(reference: str, cache: Path, option: str = "checkpoint") -> Path:
    """Download the checkpoint `wandb:ENTITY/PROJECT/ARTIFACT:ALIAS` to a folder per version in `cache`.

    `option` is the one that names it, for messages.

    Raises:
        UserError: a malformed reference, no login, no answer, no such artifact, or not exactly one checkpoint in it.
    """
    name = reference.removeprefix(PREFIX)
    if not re.fullmatch(r"[^/:]+/[^/:]+/[^/:]+:[^/:]+", name):
        raise UserError(f"{option}={reference}: expected {FORM}")
    try:
        with service():
            artifact = wandb.Api(timeout=ANSWER_SECONDS).artifact(name, type="model")
            folder = cache / artifact.entity / artifact.project / artifact.name.replace(":", "-")
            artifact.download(root=str(folder), skip_cache=True)
    except wandb.errors.UsageError as error:  # includes AuthenticationError
        raise UserError(f"{option}={reference}: not logged in to W&B; run `wandb login` first") from error
    except Exception as error:  # wandb raises many kinds, and reports a missing network as "busy"
        reasons = f"check the network and the name ({first_line(error)})"
        raise UserError(f"{option}={reference}: the download from W&B failed; {reasons}") from error
    files = sorted(folder.glob("*.ckpt"))
    if len(files) != 1:
        raise UserError(f"{option}={reference}: the artifact must contain one checkpoint; it contains {len(files)}")
    return files[0]


def first_line(error: Exception) -> str:
    """The first line of an exception's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
