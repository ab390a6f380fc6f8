import csv
from pathlib import Path
from time import time

import pytest

import alexnet_lab.description.schedule as described_schedule
from alexnet_lab.description.schedule import aligned, schedule
from alexnet_lab.errors import UserError
from alexnet_lab.pictures.chart import Panel, chart
from alexnet_lab.training import train

TINY = (
    *("model=lenet", "data=synthetic", "data.channels=1", "data.stored_size=28", "data.train_size=80"),
    *("data.val_size=16", "data.batch_size=32", "logger=none", "trainer=cpu", "trainer.max_epochs=2", "test_on=none"),
    *("trainer.log_every_n_steps=1", "trainer.limit_val_batches=0", "callbacks.pictures=null"),
)


def column(path: Path, *names: str) -> list[tuple[float, ...]]:
    """The rows of a table that have all these columns."""
    with path.open() as lines:
        rows = [[row.get(name) for name in names] for row in csv.DictReader(lines)]
    return [tuple(float(value) for value in row if value) for row in rows if all(row)]


@pytest.mark.parametrize(
    "overrides",
    [
        ("scheduler=constant", "trainer.limit_train_batches=4", "trainer.accumulate_grad_batches=2"),
        ("scheduler=step", "scheduler.epochs=1", "layers=[{pattern: last, lr: 10}]"),
        ("scheduler=cosine", "scheduler.warmup_epochs=0.7", "trainer.max_steps=5"),
        ("scheduler=one_cycle", "trainer.max_epochs=null", "trainer.max_steps=7"),
    ],
)
def test_every_step_has_the_learning_rate_and_epoch_that_the_run_logs(
    settings, as_in_a_rank, tmp_path, capsys, overrides
) -> None:
    chosen = settings(*TINY, *overrides)
    schedule(chosen, [tmp_path / "lr.csv"])
    train(chosen, tmp_path, None, time())
    described = column(tmp_path / "lr.csv", "step", "epoch", "lr")
    assert described == column(tmp_path / "metrics.csv", "step", "epoch", "lr")
    assert len(described) >= 4


def test_length_and_rates_of_a_recipe_are_known_without_the_files(settings, tmp_path, capsys) -> None:
    chosen = settings("model=lenet", f"data.dir={tmp_path}/none", "scheduler=step", "scheduler.epochs=4", "trainer=gpu")
    schedule(chosen, [tmp_path / "new" / "lr.md", tmp_path / "lr.png"])
    shown = capsys.readouterr().out
    assert "55,000 training images in batches of 128: 430 optimizer steps per epoch, 4,300 in 10 epochs" in shown
    assert "lowest lr 0.0001 (step 3,441), highest 0.01 (step 1)" in shown
    assert f"written: {tmp_path}/lr.png" in shown
    rows = [line for line in (tmp_path / "new" / "lr.md").read_text().splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        "| 1 | 1 | 0.0100 |", "| 1,721 | 5 | 0.0010 |", "| 3,441 | 9 | 0.0001 |", "| 4,300 | 10 | 0.0001 |",
    ]  # fmt: skip


def test_schedule_that_follows_the_validation_has_its_start_its_levels_and_its_rule(
    settings, tmp_path, capsys, monkeypatch
) -> None:
    drawn: list[Panel] = []
    monkeypatch.setattr(described_schedule, "chart", lambda panels, title: drawn.extend(panels) or chart(panels, title))
    files = [tmp_path / "lr.md", tmp_path / "lr.csv", tmp_path / "lr.png"]
    schedule(settings(*TINY, "scheduler=plateau_2012", "trainer.limit_val_batches=null"), files)
    shown = capsys.readouterr().out
    assert "3 optimizer steps per epoch, at most 6 in 2 epochs" in shown
    assert "the table has its start and the levels that may follow" in shown
    assert "rule: times 0.1 after 5 validations in a row" in shown
    rows = [line for line in files[0].read_text().splitlines() if line.startswith("| ")]
    levels = ["0.01000", "0.00100", "0.00010", "0.00001"]
    assert rows[1:] == [
        f"| {place} | {level} |"
        for place, level in zip(["1 | 1", *(f"after plateau {at} | " for at in (1, 2, 3))], levels, strict=True)
    ]
    assert files[1].read_text().splitlines()[1:3] == ["1,0,0.01", ",,0.001"]
    (panel,) = drawn
    assert [text for _, text in panel.levels] == ["0.01", "0.001", "0.0001", "0.00001"]
    assert [(list(line.x), list(line.y)) for line in panel.lines] == [([1], [0.01])]
    assert "times 0.1 after 5 validations" in panel.title.replace("\n", " ")


@pytest.mark.parametrize(
    ("name", "held_out", "number"),
    [("imagenet", 0, "1,281,167"), ("imagenet", 1167, "1,280,000"), ("imagenette", 0, "9,469")],
)
def test_published_number_of_images_is_taken_without_the_usual_folder(
    settings, tmp_path, capsys, monkeypatch, name, held_out, number
) -> None:
    monkeypatch.chdir(tmp_path)
    schedule(settings("model=alexnet_half_v2", f"data={name}", f"data.val_size={held_out}", "trainer.max_steps=5"), [])
    shown = capsys.readouterr().out
    assert f"\n{number} training images in batches of 128: " in shown
    assert f"there is no folder data/{name}: the number of training images is the published one" in shown


@pytest.mark.parametrize("folder", ["/nowhere", "data/imagenet"])
def test_missing_folder_that_the_user_named_is_reported(settings, tmp_path, monkeypatch, folder) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^there is no folder .*\(data\.dir\)"):
        schedule(settings("data=imagenet", f"data.dir={folder}"), [])


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1.16144e-05, 0.00500581, 0.01], ["0.0000116", "0.0050058", "0.0100000"]),
        ([0.01], ["0.01"]),
        ([0.0, 2.0, 0.5], ["0.0", "2.0", "0.5"]),
        ([120.0], ["120"]),
        ([1e-9, 0.1, 0.90123456], ["1.00e-09", "0.100000", "0.901235"]),
    ],
)
def test_numbers_of_a_column_have_the_same_decimals(values, texts) -> None:
    assert aligned(values) == texts


def test_layers_with_a_factor_have_a_column_of_their_own(settings, tmp_path) -> None:
    schedule(settings(*TINY, "layers=[{pattern: last, lr: 10}]"), [tmp_path / "lr.csv"])
    header = (tmp_path / "lr.csv").read_text().splitlines()[0].split(",")
    (factor,) = header[3:]
    assert factor.startswith("lr of ")
    assert column(tmp_path / "lr.csv", "lr", factor)[0] == pytest.approx((0.01, 0.1))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (("trainer.max_epochs=-1",), r"^trainer\.max_epochs=-1 needs trainer\.max_steps"),
        (("trainer.limit_val_batches=null", "trainer.val_check_interval=100"), "must be less than or equal"),
    ],
)
def test_settings_without_a_schedule_are_refused(settings, wrong, reason) -> None:
    with pytest.raises(UserError, match=reason):
        schedule(settings(*TINY, *wrong), [])


def test_missing_folder_of_images_is_reported(settings) -> None:
    with pytest.raises(UserError, match=r"^there is no folder /nowhere"):
        schedule(settings("data=image_folder", "data.dir=/nowhere"), [])
