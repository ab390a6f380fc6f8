"""Recognises splits by folder name: `Train`, `seg_train`, `train_set`, `valid` and other usual spellings."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal, NamedTuple

SPLITS = ("train", "val", "test")

UNCLEAR: Literal["unclear"] = "unclear"
"""`eval` can mean validation or test; `trainval` is both."""

MEANINGS: dict[str, tuple[str, ...]] = {
    "train": (
        *("train", "training", "trainings", "trn", "lern", "entrenamiento", "entrainement", "apprentissage"),
        *("treinamento", "treino", "addestramento"),
    ),
    "val": (
        *("val", "valid", "validation", "validate", "vld", "dev", "devel", "development", "validierung"),
        *("validierungs", "validacion", "validacao", "validazione"),
    ),
    "test": ("test", "tests", "testing", "tst", "unseen", "pruf", "prueba", "pruebas", "teste"),
    UNCLEAR: ("eval", "evaluation", "holdout", "heldout", "trainval", "traintest", "valtest"),
}
MEANING = {word: split for split, words in MEANINGS.items() for word in words}
FILLERS = {
    *("set", "sets", "data", "dataset", "datasets", "image", "images", "img", "imgs", "photo", "photos", "pic", "pics"),
    *("picture", "pictures", "split", "splits", "folder", "dir", "sample", "samples", "jpg", "jpeg", "png"),
    *("raw", "new", "final", "full", "small", "original", "resized", "cropped", "augmented", "processed", "cleaned"),
    *("daten", "datos", "donnees", "dados", "dati", "conjunto", "bilder", "imagenes"),
    *("labelled", "labeled", "unlabelled", "unlabeled", "files", "part", "batch", "version"),
}
"""Words without meaning in a split's name."""
JOINED = re.compile(f"({'|'.join(MEANING)})({'|'.join(FILLERS)})")
ABBREVIATIONS = {"tr", "te", "ts", "va", "vl", "dv"}
"""Abbreviations of splits; alone, each may be a class."""
HOLD_OUT = re.compile(r"(hold|held)[\W_]*out", re.IGNORECASE)
CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
WORD = re.compile(r"[^\W\d_]+")


class Meant(NamedTuple):
    split: str
    """`train`, `val`, `test` or `UNCLEAR`."""
    exactly: bool
    """Whether the name has no other meaning: true for `train_set`, false for `bullet_train`."""


def split_meant(name: str) -> Meant | None:
    """The split of a folder named `name`; None for a class.

    The last word that is not a filler decides: `seg_train` is a split, `train_station` is not.
    """
    for words in _spellings(name):
        splits = {MEANING[word] for word in words if word in MEANING}
        if not splits:
            continue
        others = [word for word in words if not _is_filler(word)]
        if others[-1] not in MEANING:
            return None
        split = splits.pop() if len(splits) == 1 else UNCLEAR
        return Meant(split, exactly=all(word in MEANING for word in others))
    return None


def splits_mentioned(name: str) -> set[str]:
    """The splits that `name` contains anywhere, as in `train_cats`."""
    return {MEANING[word] for words in _spellings(name) for word in words if word in MEANING}


def are_named_like_parts(names: Iterable[str]) -> bool:
    """Whether names differ only in a number, such as `fold1` and `fold2`, or are all `ABBREVIATIONS`."""
    words = {re.sub(r"\d+", "", name).lower() for name in names}
    return len(words) == 1 or words <= ABBREVIATIONS


def _spellings(name: str) -> tuple[list[str], list[str]]:
    """The name's words, in small letters, without accents and joined fillers; capitals begin a word or not."""
    name = "".join(sign for sign in unicodedata.normalize("NFKD", name) if not unicodedata.combining(sign))
    name = HOLD_OUT.sub("holdout", name)
    return _words(CAMEL_CASE.sub(" ", name)), _words(name)


def _words(text: str) -> list[str]:
    words = WORD.findall(text.lower())
    return [found[1] if (found := JOINED.fullmatch(word)) else word for word in words]


def _is_filler(word: str) -> bool:
    return word in FILLERS or len(word) == 1
