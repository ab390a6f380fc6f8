"""The images named on the command line: files, folders, archives and patterns."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from alexnet_lab.data.image_kinds import LeftOut
from alexnet_lab.data.sources.blobs import Blob
from alexnet_lab.data.sources.listing import LABEL_FILES, is_archive, list_files
from alexnet_lab.errors import UserError


class GivenImage(NamedTuple):
    path: str
    """The path as given; in a folder or an archive, with the path inside."""
    blob: Blob

    folders: tuple[str, ...]
    """Names of folders that may be its class: those inside the given path, from the top, and the path itself."""


def given_images(places: Sequence[str], left_out: LeftOut | None = None) -> list[GivenImage]:
    """Every image below `places`, each once, in their order; those of one place are sorted by path.

    A file that is named is always tried. In folders and archives, files that are not readable images are
    added to `left_out`. In patterns `**` matches any folders.

    Raises:
        UserError: a place is missing, a pattern matches nothing, there is no image, or an archive is damaged.
    """
    left_out = LeftOut() if left_out is None else left_out
    found = {image.path: image for place in places for image in sorted(_below(place, left_out))}
    if not found:
        raise UserError("\n".join([f"images={','.join(places)}: no image found", *left_out.lines()]))
    return list(found.values())


def _below(place: str, left_out: LeftOut) -> Iterator[GivenImage]:
    path = Path(place)
    paths: Iterable[Path] = [path] if path.exists() else map(Path, glob.glob(place, recursive=True))
    nothing = True
    for path in paths:
        nothing = False
        if path.is_dir() or is_archive(path.name):
            inside = path if path.is_dir() else path.parent
            for listed, blob in list_files([path], left_out, "images"):
                if Path(listed).name not in LABEL_FILES:
                    folders = (*Path(listed).parts[:-1], path.resolve().name)
                    yield GivenImage(str(inside / listed), blob, folders)
        else:
            yield GivenImage(str(path), Blob(str(path), 0, path.stat().st_size), (path.resolve().parent.name,))
    if nothing:
        raise UserError(f"images={place}: no such file or folder, and no file matches it as a pattern")
