"""Which configuration a continued run gets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from alexnet_lab import places
from alexnet_lab.config.arguments import make_defaults_absolute
from alexnet_lab.errors import UserError
from alexnet_lab.launch.resume import continued

CONF = str(Path(__file__).parents[2] / "conf")
FIRST = ("model=lenet", "data=synthetic", "logger=none", "optimizer.lr=0.1", "trainer=cpu", "trainer.max_epochs=3")


@pytest.fixture
def recorded(settings: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return settings(*FIRST)


def resume(recorded: dict[str, Any], *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(CONF, version_base="1.3"):
        return continued(recorded, list(overrides), "logs/run")


def test_nothing_new_gives_the_recorded_configuration(recorded: dict[str, Any]) -> None:
    assert resume(recorded) == recorded
    assert resume(recorded, "resume=auto", "run=test") == recorded
    assert resume(recorded, *FIRST, "resume=auto", "run=test") == recorded


def test_longer_run_changes_max_epochs_alone(recorded: dict[str, Any]) -> None:
    found = resume(recorded, "resume=logs/run", "trainer.max_epochs=5")
    assert found["trainer"] == recorded["trainer"] | {"max_epochs": 5}
    assert {name: value for name, value in found.items() if name not in ("trainer", "overrides")} == {
        name: value for name, value in recorded.items() if name not in ("trainer", "overrides")
    }


def test_other_trainer_keeps_the_recorded_max_epochs(recorded: dict[str, Any]) -> None:
    trainer = resume(recorded, "trainer=ddp_cpu")["trainer"]
    assert (trainer["devices"], trainer["strategy"], trainer["max_epochs"]) == (2, "ddp", 3)


def test_change_is_recorded_so_that_the_next_continuation_keeps_it(recorded: dict[str, Any]) -> None:
    once = resume(recorded, "trainer.max_epochs=5", "resume=auto")
    assert "trainer.max_epochs=5" in once["overrides"]
    assert "trainer.max_epochs=3" not in once["overrides"]
    twice = resume(once, "trainer.precision=bf16-mixed")
    assert (twice["trainer"]["max_epochs"], twice["trainer"]["precision"]) == (5, "bf16-mixed")


def test_override_counts_as_recorded_only_where_it_was_the_last_of_its_key(recorded: dict[str, Any]) -> None:
    recorded["overrides"] = ["trainer.max_epochs=1", *recorded["overrides"]]  # a script's value, then the user's
    assert resume(recorded, "trainer.max_epochs=3") == recorded
    assert resume(recorded, "trainer.max_epochs=1")["trainer"]["max_epochs"] == 1
    assert resume(recorded, "trainer.max_epochs=1", "trainer.max_epochs=3") == recorded


def test_logger_and_callbacks_may_change(recorded: dict[str, Any]) -> None:
    callback = "+callbacks.watch={_target_: alexnet_lab.callbacks.progress.Progress}"
    found = resume(recorded, "logger=tensorboard", callback)
    assert set(found["logger"]) == {"tensorboard"}
    assert found["logger"]["tensorboard"]["folder"] == "${folder}"
    assert set(found["callbacks"]) == {"progress", "pictures", "watch"}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer.lr=0.2", "optimizer.lr is 0.1 in the recorded run, 0.2 here"),
        ("model.dropout=0.5", "model.dropout is 0.0 in the recorded run, 0.5 here"),
        ("seed=1", "seed is 0 in the recorded run, 1 here"),
        ("data.batch_size=64", "data.batch_size is 32 in the recorded run, 64 here"),
        ("scheduler=step", "scheduler.epochs is nothing in the recorded run, 30 here"),
        ("test_on=last", "test_on is best in the recorded run, last here"),
    ],
)
def test_any_other_change_is_refused_with_the_key_and_both_values(
    override: str, line: str, recorded: dict[str, Any]
) -> None:
    with pytest.raises(UserError) as raised:
        resume(recorded, override)
    first, *others = str(raised.value).splitlines()
    assert first == "only trainer, logger, callbacks, checkpoints and hang_timeout may change in a continued run:"
    assert line in others


@pytest.mark.parametrize("other", ["/runs/other", "null"])
def test_other_initial_weights_are_refused(other: str, settings: Callable[..., dict[str, Any]]) -> None:
    recorded = settings(*FIRST, "init=/runs/mine")
    found = "None" if other == "null" else other
    with pytest.raises(UserError, match=f"init is /runs/mine in the recorded run, {found} here"):
        resume(recorded, f"init={other}")
    assert resume(recorded, "init=/runs/mine", "trainer.max_epochs=5")["init"] == "/runs/mine"


def test_value_that_was_recorded_may_be_said_again(recorded: dict[str, Any]) -> None:
    assert resume(recorded, "seed=0", "model.dropout=0.0")["model"] == recorded["model"]


def test_changed_default_of_a_later_version_does_not_matter_to_a_run_that_only_goes_on(
    recorded: dict[str, Any],
) -> None:
    recorded["model"]["dropout"] = 0.25  # as an older conf/model/lenet.yaml would have made it
    assert resume(recorded, "trainer.max_epochs=5")["model"]["dropout"] == 0.25


def test_recorded_relative_path_is_the_projects(settings: Callable[..., dict[str, Any]]) -> None:
    first = ("model=lenet", "data=fashion_mnist", "data.dir=sets", "logger=none")
    found = resume(settings(*first), *first[:2], f"data.dir={places.CHECKOUT}/sets", "trainer.max_epochs=5")
    assert (found["data"]["dir"], found["trainer"]["max_epochs"]) == ("sets", 5)
    with pytest.raises(UserError, match=r"data\.dir is sets in the recorded run, /elsewhere/sets here"):
        resume(settings(*first), "data.dir=/elsewhere/sets")


def test_default_paths_of_another_home_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ["model=lenet", "data=image_folder", "logger=mlflow", "seed=0"]
    with initialize_config_dir(CONF, version_base="1.3"):
        monkeypatch.setenv(places.HOME, "/home/${one}")
        config = compose("train", [*first, "run=a"])
        make_defaults_absolute(config)
    recorded: dict[str, Any] = OmegaConf.to_container(config, resolve=True) | {"overrides": first}  # type: ignore
    paths = (recorded["data"]["dir"], recorded["logger"]["mlflow"]["tracking_uri"])
    assert paths == ("/home/${one}/data/image_folder", "sqlite:////home/${one}/logs/mlflow.db")
    monkeypatch.setenv(places.HOME, "/home/two")
    found = resume(recorded, "seed=0", "model.dropout=0.0", "logger.mlflow.experiment=b", "trainer.max_epochs=5")
    assert (found["data"]["dir"], found["logger"]["mlflow"]["tracking_uri"]) == paths
    found = resume(recorded, "logger.mlflow.tracking_uri=sqlite:////c.db")
    assert found["logger"]["mlflow"]["tracking_uri"] == "sqlite:////c.db"


@pytest.mark.parametrize("name", ["Été", "猫", "lr=0.1,seed=1", "12"])
def test_run_of_any_name_takes_other_settings(name: str, recorded: dict[str, Any]) -> None:
    recorded["run"] = name
    assert resume(recorded, "trainer.max_epochs=5")["trainer"]["max_epochs"] == 5
