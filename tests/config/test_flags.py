"""Hydra's flags work in any position; other words with dashes are reported with their KEY=VALUE form."""

import pytest

from alexnet_lab.config.flags import get_args_parser, in_front
from alexnet_lab.errors import UserError

NEAREST = {"epochs": "trainer.max_epochs", "e": "trainer.max_epochs", "lr": "optimizer.lr", "run": "run"}


def moved(line: str) -> list[str]:
    return in_front(line.split(), lambda name: NEAREST.get(name, ""))


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("model=lenet -m seed=0,1", "-m model=lenet seed=0,1"),
        ("model=lenet --multirun hydra.sweep.dir=x", "--multirun model=lenet hydra.sweep.dir=x"),
        ("a=1 --cfg job b=2 --resolve ~c", "--cfg job --resolve a=1 b=2 ~c"),
        ("a=1 --config-dir conf -p data b=2", "--config-dir conf -p data a=1 b=2"),
        ("a=1 --config-dir=conf b=2", "--config-dir=conf a=1 b=2"),
        ("--info a=1 b=2", "--info=all a=1 b=2"),
        ("a=1 --info defaults b=2", "--info defaults a=1 b=2"),
        ("a=1 -i", "--info=all a=1"),
        ("--help a=1 a=1", "--help a=1 a=1"),
        ("--package a=1 a=1", "--package a=1 a=1"),
        ("--shell-completion install=bash", "--shell-completion install=bash"),
        ("photos a=1", "photos a=1"),
        ("", ""),
    ],
)
def test_flags_are_read_in_any_position(typed: str, read: str) -> None:
    words = moved(typed)
    assert words == read.split()
    assert (
        get_args_parser().parse_args(words).overrides
        == [word for word in words if word in typed.split()][-len(get_args_parser().parse_args(words).overrides) :]
    )


@pytest.mark.parametrize(
    ("typed", "word", "right"),
    [
        ("--epochs 3", "--epochs", ": trainer.max_epochs=3"),
        ("model=lenet --lr=0.1", "--lr=0.1", ": optimizer.lr=0.1"),
        ("-e 3 model=lenet", "-e", ": trainer.max_epochs=3"),
        ("--epochs model=lenet", "--epochs", ": trainer.max_epochs=VALUE"),
        ("--run=first", "--run=first", ": run=first"),
        ("-run=first", "-run=first", ": run=first"),
        ("--xyzzy 1", "--xyzzy", "; `--cfg job` prints every option"),
        ("a=1 --max-foo", "--max-foo", "; `--cfg job` prints every option"),
    ],
)
def test_option_with_dashes_is_reported_with_the_nearest_one(typed: str, word: str, right: str) -> None:
    with pytest.raises(UserError) as raised:
        moved(typed)
    assert str(raised.value) == f"{word}: options have the form KEY=VALUE, without dashes{right}"


@pytest.mark.parametrize("typed", ["--cfg nope", "--cfg", "a=1 --info nope"])
def test_wrong_value_of_a_flag_is_one_line(typed: str) -> None:
    with pytest.raises(UserError) as raised:
        moved(typed)
    assert len(str(raised.value).splitlines()) == 1
    assert "usage" not in str(raised.value)


@pytest.mark.parametrize("word", ["=lenet", "+=3", "~="])
def test_value_without_a_key_is_refused(word: str) -> None:
    with pytest.raises(UserError) as raised:
        moved(f"model=lenet {word}")
    assert str(raised.value) == f"{word}: arguments have the form KEY=VALUE; --help lists the keys"
