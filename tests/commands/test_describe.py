import csv
import json
import os
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from alexnet_lab.commands.describe import describe
from alexnet_lab.config import variants
from alexnet_lab.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("overrides", "headline", "parameters", "macs"),
    [
        (
            ["model=alexnet_original", "data=synthetic", "data.num_classes=1000"],
            "alexnet_original on synthetic: 3 x 224 x 224 -> 1000 classes",
            "60,965,224",
            "724,406,816",
        ),
        (
            ["model=alexnet_d2l", "data=fashion_mnist"],
            "alexnet_d2l on fashion_mnist: 1 x 224 x 224 -> 10 classes",
            "46,764,746",
            "938,146,176",
        ),
        (
            ["model=alexnet_torchvision", "model.pretrained=true", "data=synthetic", "data.num_classes=1000"],
            "alexnet_torchvision on synthetic: 3 x 224 x 224 -> 1000 classes",
            "61,100,840",
            "714,188,480",
        ),
    ],
)
def test_table_ends_with_the_published_totals(composed, capsys, overrides, headline, parameters, macs) -> None:
    describe(composed("describe", *overrides))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0].strip() == headline
    total = next(line for line in lines if "total" in line)
    assert parameters in total
    assert macs in total


def test_table_has_each_layer_with_kernel_stride_and_shape(composed, capsys) -> None:
    describe(composed("describe", "model=alexnet_d2l"))
    (conv1,) = (line for line in capsys.readouterr().out.splitlines() if " conv1 " in line)
    cells = re.split(r"\s{2,}", conv1.strip())
    shapes = ["1 x 224 x 224", "11x11", "4", "1", "1", "96 x 54 x 54", "11"]
    assert cells == ["conv1", "Conv2d", *shapes, "11,712", "46,848", "33,872,256"]


def test_memory_of_training_is_below_the_table(composed, capsys) -> None:
    describe(composed("describe", "model=alexnet_d2l"))
    printed = capsys.readouterr().out
    for line in ("weights: 187 MB", "momentum: 187 MB", "weights, gradients and momentum: 561 MB"):
        assert f"  {line}\n" in printed


def test_networks_are_side_by_side_with_ratios_and_the_files_have_the_same_numbers(composed, capsys, tmp_path) -> None:
    paths = [tmp_path / f"table.{suffix}" for suffix in ("md", "csv", "json", "svg")]
    lenet = composed("describe", "model=lenet", f"out=[{','.join(map(str, paths))}]")
    describe(lenet, composed("describe", "model=alexnet_d2l"))
    printed = capsys.readouterr().out
    (total,) = (line for line in printed.splitlines() if "46,764,746" in line)
    assert re.split(r"\s{2,}", total.strip())[3:7] == ["46,764,746", "758", "938,146,176", "2,252"]
    assert re.search(r"fc3/fc6 +48,120 +26,218,496 +545 +48,000 +26,214,400 +546\n", printed)
    assert max(map(len, printed.partition("written")[0].splitlines())) <= 160
    assert all(f"written: {path}\n" in printed for path in paths)
    found = json.loads(paths[2].read_text())["networks"]
    rows = list(csv.DictReader(paths[1].open()))
    assert [one["parameters"] for one in found] == [61_706, 46_764_746]
    assert found[1]["ratios"]["macs"] == 938_146_176 / 416_520
    assert found[1]["memory"]["weights, gradients and momentum"] == 12 * 46_764_746
    for one in found:
        mine = [row for row in rows if row["network"] == one["network"] and row["kind"] not in ("", "memory")]
        assert [row["layer"] for row in mine] == [layer["layer"] for layer in one["layers"]]
        assert [int(row["macs"]) for row in mine] == [layer["macs"] for layer in one["layers"]]
        assert sum(int(row["parameters"]) for row in mine) == one["parameters"]
    assert "| alexnet_d2l | 1 x 224 x 224 | 10 | 46,764,746 | 758 |" in paths[0].read_text()


def test_both_readings_of_the_ungrouped_article_are_shown(composed, capsys) -> None:
    describe(composed("describe", "model=alexnet_ungrouped", "data=synthetic", "data.num_classes=1000"))
    printed = capsys.readouterr().out
    assert "The article's text and its code differ" in printed
    assert "pooling=every_conv" in printed
    assert "25,678,184" in printed
    assert "62,378,344" in printed


def test_list_of_values_is_one_network_for_each_combination() -> None:
    arguments = ["model=lenet", "model.activation=relu,sigmoid", "data.num_classes=5,10", "out=a.md"]
    first = variants.split("describe", arguments)
    assert first == ["model=lenet", "model.activation=relu", "data.num_classes=5", "out=a.md"]
    assert [one[1:3] for one in variants.others] == [
        ["model.activation=relu", "data.num_classes=10"],
        ["model.activation=sigmoid", "data.num_classes=5"],
        ["model.activation=sigmoid", "data.num_classes=10"],
    ]
    for command, unchanged in (("describe", ["model=lenet"]), ("train", arguments)):
        assert variants.split(command, unchanged) == unchanged
        assert variants.others == []


def test_repeated_value_in_a_list_of_networks_is_refused() -> None:
    with pytest.raises(UserError, match=r"^model=lenet,lenet: lenet is there 2 times; name each value once$"):
        variants.split("describe", ["model=lenet,lenet"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.flip=2"], r"^data\.flip must be in \[0, 1\], got 2$"),
        (["tune=lr"], r"^tune belongs to train, in place of a training: omit it here$"),
        (["tune=lr", "what=schedule"], r"^tune belongs to train"),
    ],
)
def test_settings_that_no_table_shows_are_checked(composed, overrides, message) -> None:
    with pytest.raises(UserError, match=message):
        describe(composed("describe", "model=lenet", *overrides))


def test_wrong_name_in_a_list_of_networks_is_reported(script) -> None:
    ended = script.run("model=lenet,alexnet_d2", program=("src/describe.py",))
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: model=alexnet_d2: there is no such model, did you mean alexnet_d2l?\n")


@pytest.mark.parametrize(("model", "parameters"), [("alexnet_half_v1", "14,591,685"), ("alexnet_half_v2", "5,797,317")])
def test_network_has_as_many_outputs_as_the_folder_has_classes(composed, capsys, tmp_path, model, parameters) -> None:
    for name in ("daisy", "dandelion", "rose", "sunflower", "tulip"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 30)).save(tmp_path / name / "1.png")
    describe(composed("describe", f"model={model}", "data=image_folder", f"data.dir={tmp_path}"))
    shown = capsys.readouterr().out
    assert f"{model} on image_folder: 3 x 224 x 224 -> 5 classes" in shown
    assert parameters in next(line for line in shown.splitlines() if "total" in line)


def test_missing_folder_is_reported_unless_the_number_of_classes_is_given(composed, capsys, tmp_path) -> None:
    folder = ("model=alexnet_half_v2", "data=image_folder", f"data.dir={tmp_path}/flowers")
    with pytest.raises(UserError, match=r"there is no folder .*/flowers \(data.dir\)"):
        describe(composed("describe", *folder))
    describe(composed("describe", *folder, "data.num_classes=5"))
    assert "-> 5 classes" in capsys.readouterr().out


def test_command_that_cannot_sweep_reports_it_and_leaves_no_files(script, tmp_path) -> None:
    before = sorted(os.listdir(ROOT))
    ended = script.run("-m", "model=lenet,caffenet", program=(str(ROOT / "src/describe.py"),), cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == "error: describe cannot sweep (-m, --multirun): run it once for each value\n"
    assert ended.stdout == ""
    assert os.listdir(tmp_path) == []
    assert sorted(os.listdir(ROOT)) == before


def test_only_train_sweeps() -> None:
    sweeping = {}
    for path in (ROOT / "conf").glob("*.yaml"):
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            target = compose(path.stem, return_hydra_config=True).hydra.launcher._target_
        sweeping[path.stem] = target.rpartition(".")[2] != "NoLauncher"
    assert [name for name, sweeps in sweeping.items() if sweeps] == ["train"]


def test_scripts_report_wrong_names_in_a_few_lines(script) -> None:
    ended = script.run("model=alexnet_d2", program=("src/describe.py",))
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: model=alexnet_d2: there is no such model, did you mean alexnet_d2l?\n")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ["evaluate", "describe", "prepare", "results", "compare"])
def test_help_shows_an_example(script, name) -> None:
    ended = script.run("--help", program=(f"src/{name}.py",))
    assert ended.returncode == 0
    assert f"python src/{name}.py" in ended.stdout


@pytest.mark.parametrize("towers", ["true", "x", "3", "null"])
def test_wrong_number_of_towers_is_refused_in_a_line(composed, towers: str) -> None:
    with pytest.raises(UserError, match=r"^model\.towers: .* does not fit: [^\n]*$"):
        describe(composed("describe", "model=alexnet_original", f"model.towers={towers}"))


def test_drawings_in_the_readme_are_those_of_their_commands(composed, capsys, tmp_path) -> None:
    out = tmp_path / "new" / "alexnet.SVG"
    describe(composed("describe", "model=alexnet_original", "data=imagenet", f"out={out}"))
    assert capsys.readouterr().out.splitlines()[-1] == f"written: {out}"
    assert out.read_bytes() == (ROOT / "docs/alexnet_original.svg").read_bytes()
    describe(composed("describe", "model=lenet", f"out={out}"), composed("describe", "model=alexnet_d2l"))
    assert out.read_bytes() == (ROOT / "docs/lenet_and_alexnet_d2l.svg").read_bytes()
    page = (ROOT / "README.md").read_text()
    assert "(docs/alexnet_original.svg)" in page
    assert "(docs/lenet_and_alexnet_d2l.svg)" in page


def test_drawing_with_another_suffix_is_refused(composed, capsys) -> None:
    with pytest.raises(UserError, match=r"^out=drawing\.jpg: the name must end in [^\n]*\.svg[^\n]*$"):
        describe(composed("describe", "model=lenet", "out=drawing.jpg"))
    assert capsys.readouterr().out == ""


def test_several_networks_are_refused_where_one_run_is_described(composed) -> None:
    with pytest.raises(UserError, match=r"^what=schedule describes one run: .*what=layers takes several$"):
        describe(composed("describe", "what=schedule", "model=lenet"), composed("describe", "model=alexnet_d2l"))
