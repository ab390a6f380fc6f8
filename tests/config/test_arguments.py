"""Paths are relative to the user's folder; arguments that Hydra cannot read are reported with a line to paste."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alexnet_lab import places
from alexnet_lab.command_line import HEAD
from alexnet_lab.commands.entry import register_resolvers
from alexnet_lab.config import arguments
from alexnet_lab.config.advice import advice
from alexnet_lab.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
HERE = Path("/home/me/my photos")


def rewritten(*words: str, here: Path = HERE) -> list[str]:
    return arguments.rewritten(words, here)


def value(word: str) -> Any:
    return OverridesParser.create().parse_override(word).value()


@pytest.fixture
def as_typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def start(*words: str, script: str = "src/train.py", here: Path = HERE) -> None:
        monkeypatch.setattr(sys, "argv", [script, *words])
        monkeypatch.setattr(sys, "orig_argv", ["python", script, *words])
        monkeypatch.setenv(HEAD, arguments.command_head(Path(script).stem))
        monkeypatch.setattr(arguments, "given", [])
        arguments.prepare(here, "train")

    return start


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("images=photos", f"{HERE}/photos"),
        ("images=my photo.jpg", f"{HERE}/my photo.jpg"),
        ("images='café, 猫 [1].jpg'", f"{HERE}/café, 猫 [1].jpg"),
        ("images=2020", f"{HERE}/2020"),
        ("images=1e3", f"{HERE}/1e3"),
        ("images=true", f"{HERE}/true"),
        ("images=../x", "/home/me/x"),
        ("images=./a/./b/", f"{HERE}/a/b"),
        ("out=classes.csv", f"{HERE}/classes.csv"),
        ("images='a$b'", f"{HERE}/a$b"),
        ("+data.dir=sets", f"{HERE}/sets"),
        ("++data.dir=sets", f"{HERE}/sets"),
        ("hydra.run.dir=there", f"{HERE}/there"),
        ("logger.mlflow.tracking_uri=sqlite:///runs.db", f"sqlite:///{HERE}/runs.db"),
        ("hydra.sweeper.storage=sqlite:///studies/x.db", f"sqlite:///{HERE}/studies/x.db"),
        ("hydra.sweeper.storage=journal:x.journal", f"journal:{HERE}/x.journal"),
        ("checkpoint=[a.ckpt,'b c.ckpt']", [f"{HERE}/a.ckpt", f"{HERE}/b c.ckpt"]),
        ("checkpoint=caffenet:a.caffemodel", f"caffenet:{HERE}/a.caffemodel"),
        ("checkpoint=[bvlc_alexnet:../a,torchvision,b]", ["bvlc_alexnet:/home/me/a", "torchvision", f"{HERE}/b"]),
        ("checkpoint=./torchvision", f"{HERE}/torchvision"),
        ("init=runs/mine", f"{HERE}/runs/mine"),
        ("init=bvlc_alexnet:a.caffemodel", f"bvlc_alexnet:{HERE}/a.caffemodel"),
        ("checkpoint=caffenet:../x", "caffenet:/home/me/x"),
        ("checkpoint=caffenet:~/FILE", f"caffenet:{Path.home()}/FILE"),
        ("init=bvlc_alexnet:~/FILE", f"bvlc_alexnet:{Path.home()}/FILE"),
        ("checkpoint='caffenet:~/my file'", f"caffenet:{Path.home()}/my file"),
        ("checkpoint=[A,caffenet:~/B, ~/C]", [f"{HERE}/A", f"caffenet:{Path.home()}/B", f"{Path.home()}/C"]),
        ("hydra.sweeper.storage=sqlite:///~/x.db", f"sqlite:///{Path.home()}/x.db"),
        ("images=[2020,2021]", [f"{HERE}/2020", f"{HERE}/2021"]),
    ],
)
def test_relative_path_starts_at_the_users_folder(typed: str, path: Any) -> None:
    (word,) = rewritten(typed)
    assert value(word) == path


@pytest.mark.parametrize(
    "typed",
    [
        "resume=auto",
        "images=/abs/photos",
        "images=[/abs/a,/abs/b]",
        "checkpoint=wandb:me/project/model:best",
        "checkpoint=torchvision",
        "init=torchvision",
        "init=null",
        "checkpoint=caffenet:/abs/a.caffemodel",
        "data.dir=s3://bucket/folder",
        "stream=local:/buckets/x",
        "model.pretrained=true",
        "out=null",
        "data.dir=${oc.env:SETS}",
        "baseline=lenet-sgd",
        "logger.mlflow.tracking_uri=http://server:5000",
        "logger.mlflow.tracking_uri=sqlite:////abs/runs.db",
        "hydra.sweeper.storage=journal:/abs/x.journal",
        "hydra.sweeper.storage=postgresql://host/studies",
        "model=lenet",
        "optimizer.lr=0.1",
        "~callbacks.pictures",
        "--cfg",
        "images=[",
    ],
)
def test_other_arguments_are_unchanged(typed: str) -> None:
    assert rewritten(typed) == [typed]


def test_init_also_takes_the_name_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.HOME, str(tmp_path / "home"))
    run = tmp_path / "home" / "logs/train/runs/mine"
    run.mkdir(parents=True)
    assert rewritten("init=mine", here=tmp_path) == [f"init={run}"]
    assert arguments.rewritten(["-m", "init=mine,null,other"], tmp_path) == ["-m", f"init={run},null,{tmp_path}/other"]
    (tmp_path / "mine").touch()
    assert rewritten("init=mine", here=tmp_path) == [f"init={tmp_path}/mine"]


def test_baseline_is_a_path_if_that_path_exists(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert rewritten("baseline=mine", here=tmp_path) == [f"baseline={tmp_path}/mine"]


def test_each_value_of_a_sweep_is_made_absolute() -> None:
    _, word = rewritten("-m", "data.dir=a,'b c',/d")
    assert word == f'data.dir="{HERE}/a","{HERE}/b c",/d'


@pytest.mark.parametrize("words", [("--config-dir=/a=b/c=d",), ("--config-dir", "/a=b/c=d"), ("-cd=/a=b/c=d",)])
def test_folder_of_configurations_may_have_an_equals_sign(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *words, "model=x"])
    assert arguments.folders("conf") == [Path("conf"), Path("/a=b/c=d")]


def test_config_dir_is_relative_to_the_users_folder() -> None:
    assert rewritten("--config-dir", "conf", "-cd", "/x", "--config-dir=more") == [
        *("--config-dir", f"{HERE}/conf", "-cd", "/x", f"--config-dir={HERE}/more")
    ]


def test_pattern_works_in_a_folder_whose_name_has_pattern_characters(tmp_path: Path) -> None:
    odd = tmp_path / "a[1]*"
    odd.mkdir()
    (odd / "x.jpg").touch()
    import glob

    (word,) = rewritten("images=*.jpg", here=odd)
    assert glob.glob(value(word)) == [str(odd / "x.jpg")]
    (word,) = rewritten("images=x.jpg", here=odd)
    assert value(word) == str(odd / "x.jpg")


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("data.dir=~", "/home/猫 me"),
        ("data.dir=~/sets/a", "/home/猫 me/sets/a"),
        ("data.dir='~/sets, all'", "/home/猫 me/sets, all"),
        ("checkpoint=[~/a.ckpt,~/b.ckpt]", ["/home/猫 me/a.ckpt", "/home/猫 me/b.ckpt"]),
        ("data.dir=~root/sets", f"{os.path.expanduser('~root')}/sets"),
    ],
)
def test_tilde_is_expanded(typed: str, path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/猫 me")
    (word,) = rewritten(typed)
    assert value(word) == path


@pytest.mark.parametrize("name", ["12", "1e3", "true", "007"])
def test_name_of_a_run_may_look_like_a_number(name: str) -> None:
    (word,) = rewritten(f"run={name}")
    assert value(word) == name


def answer(command: str = "train") -> str:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(HydraException) as raised:
        compose(command, [word for word in sys.argv[1:] if not word.startswith("-")])
    return advice(raised.value, str(CONF), command)


@pytest.mark.parametrize(
    "text",
    [
        *("/sets/é", "/sets/猫", "a#b", "a;b", "a!b", "a=b", "it's", 'say "x"', "a(1).jpg", "(a)", "x]", "a{b}", "a&b"),
        *("a<b>", "a^b", "`a`", "~nobody-here/x", "a=b,c=d", "[a].jpg"),
    ],
)
def test_unreadable_override_is_reported_with_a_line_that_works(text: str, as_typed: Any) -> None:
    as_typed("model=lenet", f"data.dir={text}", "seed=1")
    first, line = answer().splitlines()
    assert first == f"data.dir={text}: Hydra cannot parse this; quoted for Hydra and for the shell:"
    python, script, *words = shlex.split(line)
    assert (python, script) == ("python", "src/train.py")
    assert (words[0], words[2]) == ("model=lenet", "seed=1")
    assert value(words[1]) == text


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("images=[a (1).jpg,b]", ["a (1).jpg", "b"]),
        ("images=[é.jpg, b]", ["é.jpg", "b"]),
    ],
)
def test_unreadable_list_is_reported_with_a_quoted_list(typed: str, right: list[str], as_typed: Any) -> None:
    as_typed(typed)
    assert value(shlex.split(answer().splitlines()[1])[2]) == right


def test_all_unreadable_values_are_quoted_at_once(as_typed: Any) -> None:
    as_typed("data.dir=/é", "model=lenet", "model.pretrained=/a#b", "--cfg", "job")
    line = answer().splitlines()[1]
    assert line == """python src/train.py 'data.dir="/é"' model=lenet 'model.pretrained="/a#b"' --cfg job"""


def test_value_split_by_the_shell_is_reported_with_the_whole_value(as_typed: Any) -> None:
    as_typed("model=lenet", "data.dir=/my", "photos", "(1)", "seed=1")
    first, line = answer().splitlines()
    assert first.startswith("photos: Hydra cannot parse this; quoted")
    assert line == """python src/train.py model=lenet 'data.dir="/my photos (1)"' seed=1"""


def test_file_without_a_key_is_reported_with_the_form_of_an_argument(as_typed: Any, tmp_path: Path) -> None:
    as_typed("images=/a.jpg", str(tmp_path), "seed=1")
    assert answer() == f"{tmp_path}: arguments have the form KEY=VALUE; --help lists the keys"


def test_too_long_name_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^images=/.*xxx\.\.\.: File name too long$"):
        rewritten(f"images={'x' * 300}", here=tmp_path)


def composed(line: str, as_typed: Any) -> Any:
    """The configuration of a printed command line, as the program reads it."""
    _, script, *words = shlex.split(line)
    as_typed(*words, script=script)
    overrides = [word for word in sys.argv[1:] if word != "-m"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(Path(script).stem, overrides if "-m" not in words else [], return_hydra_config=True)
    if "-m" in words:
        assert OverridesParser.create().parse_overrides(overrides)
    elif Path(script).stem == "train":
        assert config.hydra.run.dir  # contains the run's name
    return config


@pytest.mark.parametrize(
    ("typed", "key", "values"),
    [
        ("train run=a,b", "run", ["a,b"]),
        ("train run=é", "run", ["é"]),
        ("train run=lr=0.1,é", "run", ["lr=0.1,é"]),
        ("train data.dir=/sets/a,b", "data.dir", ["/sets/a,b"]),
        ("train data.dir=~/a,b seed=1", "data.dir", [f"{os.path.expanduser('~')}/a,b"]),
        ("train data.dir=a,b", "data.dir", [f"{HERE}/a,b"]),
        ("train data.mean=0.5,0.5", "data.mean", [[0.5, 0.5]]),
        ("train data.mean=[0.5, 0.5]", "data.mean", [[0.5, 0.5]]),
        ("train model=lenet,caffenet", "model", [None]),
        ("train seed=0,1 model=lenet", "seed", [None]),
        ("train logger.wandb.project=a,b", "logger.wandb.project", ["a,b"]),
        ("predict images=a,b checkpoint=x", "images", [f"{HERE}/a,b", [f"{HERE}/a", f"{HERE}/b"]]),
        ("predict out=a,b.csv", "out", [f"{HERE}/a,b.csv"]),
        ("compare out=a.md,b.csv", "out", [f"{HERE}/a.md,b.csv", [f"{HERE}/a.md", f"{HERE}/b.csv"]]),
    ],
)
def test_every_suggested_line_is_accepted(typed: str, key: str, values: list[Any], as_typed: Any) -> None:
    name, *words = typed.split(" ")
    as_typed(*words, script=f"src/{name}.py")
    lines = answer(command=name).splitlines()[1:]
    assert len(lines) == len(values)
    for line, right in zip(lines, values, strict=True):
        config = composed(line, as_typed)
        if right is None:
            assert shlex.split(line)[2:] == ["-m", *words]
        else:
            found = OmegaConf.select(config, key)
            assert (list(found) if isinstance(right, list) else found) == right


@pytest.mark.parametrize(
    "name", ["a#b", "my run!", "my run", "(x)", "{x}", "{a:1}", "a;b", "[a,b]", "[]", "a/b,c", "null"]
)
def test_wrong_run_name_is_reported_with_the_rule(name: str, as_typed: Any) -> None:
    def start() -> None:
        as_typed("model=lenet", f"run={name}", "data.dir=/é")
        assert compose("train", sys.argv[1:3], return_hydra_config=True).hydra.run.dir

    with (
        initialize_config_dir(str(CONF), version_base="1.3"),
        pytest.raises((UserError, HydraException, OmegaConfBaseException)) as raised,
    ):
        start()
    rule = "a run's name consists of letters, digits and . _ - + = ,"
    assert advice(raised.value, str(CONF), "train") == f"run={name}: {rule}"


def test_run_name_split_by_the_shell_is_reported_with_the_rule(as_typed: Any) -> None:
    as_typed("run=my", "run")
    assert answer().startswith("run=my run: a run's name consists of letters")


def test_non_text_value_is_not_quoted(as_typed: Any) -> None:
    for words in (["seed=1#"], ["model=lenet", "fast"]):
        as_typed(*words)
        assert len(answer().splitlines()) == 1


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ("predict.py checkpoint=best.ckpt photos", ["checkpoint=best.ckpt", "images=photos"]),
        ("predict.py checkpoint=best.ckpt ~/x top=3", ["checkpoint=best.ckpt", f"images={Path.home()}/x", "top=3"]),
        ("predict.py checkpoint=x photos", ["checkpoint=x", "images=photos"]),
        ("predict.py images=photos more", ["images=[photos,more]"]),
        ("predict.py photos checkpoint=x", ["images=photos", "checkpoint=x"]),
        ("predict.py checkpoint=my photo", ['checkpoint="my photo"']),
        ("predict.py images=my pictures", ['images="my pictures"']),
        ("prepare.py data=image_folder photos", ["data=image_folder", "source=photos"]),
    ],
)
def test_path_without_a_key_is_reported_with_the_key(
    typed: str, suggested: list[str], as_typed: Any, tmp_path: Path
) -> None:
    for name in ("best.ckpt", "photos"):
        (tmp_path / name).touch()
    script, *words = typed.split(" ")
    as_typed(*words, script=f"src/{script}", here=tmp_path)
    line = answer(command=script.removesuffix(".py")).splitlines()[1]
    assert shlex.split(line) == ["python", f"src/{script}", *suggested]
    composed(line, as_typed)


def test_unreadable_value_without_letters_is_reported_with_hydras_reason(as_typed: Any) -> None:
    as_typed("model.dropout=[")
    (line,) = answer().splitlines()
    assert line.startswith("model.dropout=[: Hydra cannot parse this: ")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("images=", "images=: the path is empty; name a file or a folder"),
        ("checkpoint=''", "checkpoint='': the path is empty"),
        ("out={a:1}", "out={a:1}: out takes a path or a list of paths"),
        ("data.dir={a:1}", "data.dir={a:1}: data.dir takes a path"),
        ("images=[[a]]", "images=[[a]]: images takes a path or a list of paths"),
        ("add=[a,null]", "add=[a,null]: null is not a path; remove it from the list"),
    ],
)
def test_value_that_is_not_a_path_is_reported_as_typed(typed: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        rewritten(typed)
    assert str(raised.value) == message or str(raised.value).startswith(f"{message}; ")


def test_rows_are_a_path_for_evaluate_and_settings_for_compare(tmp_path: Path) -> None:
    words = ["rows=model", "columns=[data,optimizer.lr]", "out=x.png"]
    assert arguments.rewritten(words, tmp_path, "compare") == [*words[:2], f"out={tmp_path}/x.png"]
    assert arguments.rewritten(words[:1], tmp_path, "evaluate") == [f"rows={tmp_path}/model"]
