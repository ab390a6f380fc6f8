"""The images that a checkpoint was trained and evaluated on, and a check whether the data has changed since."""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from alexnet_lab.errors import UserError

SplitName = Literal["train", "val", "test"]

log = logging.getLogger(__name__)


class Contents(NamedTuple):
    """The images of a split, in plain values for the checkpoint."""

    images: int
    identity: str
    """`KIND:DIGEST`; two of the same kind are equal if the images are the same."""
    is_held_out: bool = False
    """Whether the split is a part of these images, chosen by row: an additional image would shift the rows."""

    def differs(self, other: "Contents") -> bool:
        """Whether the images certainly differ; identities of different kinds are not comparable."""
        comparable = self.identity.partition(":")[0] == other.identity.partition(":")[0]
        return self.images != other.images or (comparable and self.identity != other.identity)


def identity_of(names: Iterable[str]) -> str:
    """The identity of files, by their names in order; replacing a file under its name does not change it."""
    digest = hashlib.blake2b("\n".join(names).encode(errors="surrogateescape"), digest_size=16)
    return f"names:{digest.hexdigest()}"


def check_unchanged(before: Mapping[str, Any], images: int, now: Mapping[SplitName, Contents]) -> None:
    """Compare the data with that of a checkpoint; logs a warning for each split that has changed.

    Args:
        before: `images` and `contents` of a checkpoint, see `ImageDataModule.state_dict`; older ones lack them.
        images: the number of training images now.
        now: the contents of each split now; empty for data that cannot change.

    Raises:
        UserError: different images would be held out, so the run would be validated on training images.
    """
    then = {split: Contents(*value) for split, value in before.get("contents", {}).items()}
    changed = [split for split in now if split in then and now[split].differs(then[split])]
    trained = before.get("images", images)
    if trained != images or "train" in changed:
        text = _change(trained, images, "training")
        if "val" in now and now["val"].is_held_out:
            raise UserError(
                f"the data has changed since the checkpoint: {text}. data.val_size would hold out other images than "
                "before, so the run would be validated on images that it was trained on; restore the images as they "
                "were, or start a new run"
            )
        log.warning("the data has changed since the checkpoint: %s, in another order", text)
    for split in changed:
        if split != "train" and not now[split].is_held_out:
            best = "; the best epoch so far was measured on other images" if split == "val" else ""
            text = _change(then[split].images, now[split].images, split)
            log.warning("the data has changed since the checkpoint: %s%s", text, best)


def _change(then: int, now: int, kind: str) -> str:
    return (
        f"{then:,} {kind} images then, {now:,} now"
        if then != now
        else f"{now:,} {kind} images then and now, from another set of files"
    )
