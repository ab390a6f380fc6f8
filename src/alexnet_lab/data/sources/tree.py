"""The folders of a source that contain images, and their names in messages."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from alexnet_lab.command_line import from_here, typed
from alexnet_lab.data.sources.listing import Listed, archive_folder
from alexnet_lab.errors import UserError, printable


@dataclass
class Folder:
    """A folder with images at any depth; an archive counts as a folder."""

    path: str
    """Relative to the source, with `/`; the source itself is empty."""
    files: list[Listed] = field(default_factory=list)
    subfolders: dict[str, "Folder"] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def below(self) -> Iterator[Listed]:
        """All images, at any depth."""
        yield from self.files
        for folder in self.subfolders.values():
            yield from folder.below()

    def folders(self) -> Iterator["Folder"]:
        """All folders in it, at any depth."""
        for folder in self.subfolders.values():
            yield folder
            yield from folder.folders()


@dataclass(frozen=True)
class Place:
    """Names in messages for the contents of a source; `option` is the key on the command line."""

    option: str
    sources: Sequence[Path]

    def of(self, path: str) -> str:
        """The name of a folder or file; with several sources, relative to them."""
        shown = str(self.sources[0] / path) if self.is_one_folder else path or ", ".join(map(str, self.sources))
        return printable(shown)

    def refuse(self, reason: str) -> NoReturn:
        raise UserError(f"{self.option}: {reason}")

    def refuse_for(self, folder: Folder, reason: str) -> NoReturn:
        """Add a hint that names the folder that contains `folder`, which may be the intended dataset."""
        inside = folder.path.rpartition("/")[0]
        if self.is_one_folder and not is_packed(folder):
            folder_typed = typed(self.option, from_here(self.sources[0] / inside))
            self.refuse(f"{reason}; for the dataset in {self.of(inside)}: {folder_typed}")
        archive = printable(next(folder.below()).blob.file)
        self.refuse(
            f"{reason}; it is in {archive}: move that away, or unpack it and name a dataset in it: {self.option}=FOLDER"
        )

    def is_archive(self, folder: Folder) -> bool:
        """Whether `folder` is a whole archive."""
        image = Path(next(folder.below()).blob.file)
        places = (source if source.is_dir() else source.parent for source in self.sources)
        return any(folder.path == archive_folder(os.path.relpath(image, place)) for place in places)

    @property
    def is_one_folder(self) -> bool:
        return len(self.sources) == 1 and self.sources[0].is_dir()


def folders_of(files: Iterable[Listed]) -> Folder:
    """The source as a folder, with all its subfolders that contain images."""
    known = {"": Folder("")}
    for file in files:
        _folder(known, file.path.rpartition("/")[0]).files.append(file)
    for folder in known.values():
        folder.subfolders = dict(sorted(folder.subfolders.items()))  # as messages name them
    return known[""]


def _folder(known: dict[str, Folder], path: str) -> Folder:
    if path not in known:
        parent, _, name = path.rpartition("/")
        known[path] = _folder(known, parent).subfolders[name] = Folder(path)
    return known[path]


def is_packed(folder: Folder) -> bool:
    """Whether it is inside an archive, where the user cannot name it."""
    image = next(folder.below())
    return Path(image.blob.file).name != image.path.rpartition("/")[2]
