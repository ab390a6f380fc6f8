"""Messages for wrong command lines, made from Hydra's errors."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexnet_lab.commands.entry import register_resolvers
from alexnet_lab.config.advice import advice, did_you_mean, nearest
from alexnet_lab.errors import UserError

CONF = str(Path(__file__).parents[2] / "conf")


def message_for(*overrides: str, command: str = "train") -> str:
    register_resolvers()
    with (
        initialize_config_dir(CONF, version_base="1.3"),
        pytest.raises((HydraException, OmegaConfBaseException, ValueError)) as raised,
    ):
        OmegaConf.to_container(compose(command, list(overrides)), resolve=True)
    return advice(raised.value, CONF, command)


def test_unknown_choice_is_reported_with_the_closest_and_all_choices() -> None:
    first, second = message_for("model=alexnet_orignal").splitlines()
    assert first == "model=alexnet_orignal: there is no such model, did you mean alexnet_original?"
    assert second.startswith("choose from: alexnet_d2l, alexnet_half_v1, ")
    assert second.endswith("lenet")


def test_unknown_experiment_is_reported_with_the_closest() -> None:
    assert message_for("experiment=quickstrat").startswith(
        "experiment=quickstrat: there is no such experiment, did you mean quickstart?"
    )


@pytest.mark.parametrize(
    ("override", "suggested"),
    [
        ("optimizer.lrr=1", "optimizer.lr"),
        ("trainer.max_epoch=1", "trainer.max_epochs"),
        ("logger.wandb.projct=x", "logger.wandb.project"),
        ("hydra.lancher=x", "hydra.launcher"),
        ("sede=1", "seed"),
        ("optimzer.lr=1", "optimizer"),
        ("modl=lenet", "model"),
        ("expriment=quickstart", "experiment"),
        ("lr=1", "optimizer.lr"),
        ("max_epochs=1", "trainer.max_epochs"),
        ("num_classes=5", "data.num_classes"),
        ("image_size=64", "model.image_size"),
    ],
)
def test_suggestion_is_an_option_of_the_composed_configuration(override: str, suggested: str) -> None:
    key = override.partition("=")[0]
    wrong = "optimzer" if key == "optimzer.lr" else key
    assert message_for(override).splitlines() == [
        f"there is no option {wrong!r}, did you mean {suggested}?",
        "`--cfg job` prints every option",
    ]


@pytest.mark.parametrize("override", ["xyzzy=1", "out=x", "source=x", "defaults=x"])
def test_options_of_other_commands_are_not_suggested(override: str) -> None:
    key = override.partition("=")[0]
    assert message_for(override).splitlines() == [f"there is no option {key!r}", "`--cfg job` prints every option"]


@pytest.mark.parametrize("deleted", ["callbacks", "logger", "checkpoints"])
def test_typed_option_is_never_suggested(deleted: str) -> None:
    assert "did you mean" not in message_for(f"~{deleted}", f"{deleted}.x=1")


def test_option_of_other_choices_is_reported_with_those_choices() -> None:
    assert message_for("data.crop_size=24", "data=fashion_mnist").startswith(
        "there is no option 'data.crop_size'; it belongs to data=image_folder, data=imagenet, data=imagenette\n"
    )
    assert "did you mean" not in message_for("data.crop_size=3", "data=synthetic")
    line = message_for("model.pretrained=true", "model=lenet").splitlines()[0]
    assert line.endswith("; any network starts a run with other weights by init=torchvision or init=CHECKPOINT")
    # evaluate has `data.dir`, but no group `data` to choose from
    assert message_for("data.flip=0.5", command="evaluate").splitlines()[0] == "there is no option 'data.flip'"


def test_option_missing_in_the_configuration_can_be_added_with_plus() -> None:
    assert message_for("callbacks.mine=1").endswith("to add a new one, put a + in front: +callbacks.mine=...")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["~data.channels"], "model.in_channels refers to data.channels, which does not exist"),
        (["~model"], "data.image_size refers to model.image_size, which does not exist"),
        (["model.dropout=${nope:1}"], "model.dropout: Unsupported interpolation type nope"),
        (["+model=lenet"], "+model: one is already chosen; to replace it, omit the +: model=NAME"),
        (["seed=???"], "data.seed: MissingMandatoryValue while resolving"),
    ],
)
def test_composition_error_names_the_key_in_one_line(overrides: list[str], line: str) -> None:
    message = message_for(*overrides)
    assert message.startswith(line)
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("override", ["model=null", "logger=null", "data=3"])
def test_group_without_a_name_is_reported_with_the_choices(override: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "seed=3", override])
    group = override.partition("=")[0]
    first, second = message_for(override).splitlines()
    assert first == f"{override}: {group} takes a name"
    assert second.startswith("choose from: ")


def test_unreadable_override_is_reported_in_few_lines() -> None:
    (line,) = message_for("model.dropout=[").splitlines()
    assert line.startswith("model.dropout=[: Hydra cannot parse this")


def test_nested_user_error_is_reported_unchanged() -> None:
    error = RuntimeError("outer")
    error.__cause__ = UserError("what is wrong")
    assert advice(error, CONF, "train") == "what is wrong"


def test_nothing_is_suggested_if_nothing_is_close() -> None:
    assert did_you_mean("dropuot", ["dropout", "lrn"]) == ", did you mean dropout?"
    assert did_you_mean("zzz", ["dropout", "lrn"]) == ""


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("optimizer=SGD", ", did you mean sgd?"),
        ("trainer=GPU", ", did you mean gpu?"),
        ("model=Lenet", ", did you mean lenet?"),
        ("experiment=krizhevsky", ""),
        ("model=alexnet", ", did you mean alexnet_original?"),
        ("model=AlexNet", ", did you mean alexnet_original?"),
        ("model=resnet", ""),
    ],
)
def test_suggested_choice_is_very_close(typed: str, hint: str) -> None:
    group = typed.partition("=")[0]
    assert message_for(typed).splitlines()[0] == f"{typed}: there is no such {group}{hint}"


def test_other_optimizers_of_torch_are_named_by_their_class() -> None:
    assert message_for("optimizer=nadam").endswith("; any other of torch: optimizer._target_=torch.optim.NAME")


def test_option_of_another_class_of_the_optimizer_needs_a_plus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "optimizer._target_=torch.optim.Adagrad", "optimizer.lr_decay=1"])
    assert message_for("optimizer.lr_decay=1").endswith("type +optimizer.lr_decay=...")


@pytest.mark.parametrize(
    ("typed", "option"),
    [
        ("learning_rate", "optimizer.lr"),
        ("optimizer.learning_rate", "optimizer.lr"),
        ("gpus", "trainer.devices"),
        ("trainer.gpus", "trainer.devices"),
        ("epochs", "trainer.max_epochs"),
        ("amp", "trainer.precision"),
        ("run_name", "run"),
    ],
)
def test_option_name_of_other_programs_is_translated(typed: str, option: str) -> None:
    assert message_for(f"{typed}=1").startswith(f"there is no option {typed!r}, did you mean {option}?")


@pytest.mark.parametrize(
    ("command", "typed", "line"),
    [
        ("train", "data.image_folder=x", "; image_folder is a choice: data=image_folder data.dir=FOLDER"),
        ("train", "model.lenet=x", "; lenet is a choice: model=lenet"),
        ("train", "workers=4", "; data.workers is an option of data=image_folder, data=imagenet, data=imagenette"),
        ("train", "num_workers=4", "; data.workers is an option of data=image_folder, data=imagenet, data=imagenette"),
        ("train", "pretrained=true", "; model.pretrained is an option of model=alexnet_torchvision"),
    ],
)
def test_option_of_other_choices_is_found_in_all_groups(command: str, typed: str, line: str) -> None:
    key = typed.partition("=")[0]
    assert message_for(typed, command=command).splitlines()[0] == f"there is no option {key!r}{line}"


@pytest.mark.parametrize(
    ("command", "typed", "line"),
    [
        ("train", "~resume", "~resume: resume can be changed, but not removed"),
        ("train", "~model=lenet", "~model: model can be changed, but not removed"),
        ("train", "~seed=7", "~seed: seed can be changed, but not removed"),
        ("train", "~foo", "~foo: there is no option 'foo' to remove"),
        ("train", "~model.foo", "~model.foo: there is no option 'model.foo' to remove"),
        ("train", "+seed=3", "seed already exists; to change it, omit the +: seed=VALUE"),
        ("train", "++model=lenet", "++model=lenet: omit the ++: model=lenet"),
        ("evaluate", "data=imagenet", "this command takes only keys of data: data.dir, data.eval_batch_size"),
        ("predict", "model=lenet", "this command has no model; --help lists its options"),
    ],
)
def test_wrong_use_of_a_key_is_one_line(command: str, typed: str, line: str) -> None:
    assert message_for(typed, command=command) == line


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *(("epochs", "trainer.max_epochs"), ("e", "trainer.max_epochs"), ("lr", "optimizer.lr"), ("seed", "seed")),
        *(("model", "model"), ("optimizer.lr", "optimizer.lr"), ("xyzzy", ""), ("batch_size", "data.batch_size")),
    ],
)
def test_nearest_option_for_a_name(name: str, option: str) -> None:
    assert nearest(name, CONF, "train") == option
