"""The images that somebody names: files, folders, tar archives and patterns."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from alexnet_lab.data.sources.listing import IMAGE_SUFFIXES, Blob, list_files
from alexnet_lab.errors import UserError


class GivenImage(NamedTuple):
    path: str
    """As it was named; in a folder or an archive, with the path inside."""
    blob: Blob

    @property
    def folder(self) -> str:
        """The name of the folder that it lies in."""
        return Path(self.path).resolve().parent.name


def given_images(places: Sequence[str]) -> list[GivenImage]:
    """Every image below `places`, each once, in their order; those of one place are sorted by path.

    A named file is taken whatever it is called; in folders and archives an image is told by its suffix. In patterns
    `**` stands for any folders.

    Raises:
        UserError: a place is missing, a pattern fits nothing, there is no image, or an archive is damaged.
    """
    found = {image.path: image for place in places for image in sorted(_below(place))}
    if not found:
        raise UserError(f"images={','.join(places)}: there is no image; suffixes: {' '.join(sorted(IMAGE_SUFFIXES))}")
    return list(found.values())


def _below(place: str) -> Iterator[GivenImage]:
    path = Path(place)
    paths: Iterable[Path] = [path] if path.exists() else map(Path, glob.glob(place, recursive=True))
    nothing = True
    for path in paths:
        nothing = False
        if path.is_dir() or path.suffix.lower() == ".tar":
            inside = path if path.is_dir() else path.parent
            listed = ((file.path, file.blob) for file in list_files([path]))
            yield from (GivenImage(str(inside / name), blob) for name, blob in listed if _is_image(name))
        else:
            yield GivenImage(str(path), Blob(str(path), 0, path.stat().st_size))
    if nothing:
        raise UserError(f"images={place}: there is no such file or folder, and as a pattern it fits nothing")


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES
