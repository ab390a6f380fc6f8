import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from alexnet_lab.commands.evaluate import evaluate
from alexnet_lab.commands.export import export
from alexnet_lab.commands.predict import predict
from alexnet_lab.data.store.prepare import prepare as prepare_store
from alexnet_lab.errors import UserError
from alexnet_lab.pictures.sheet import CAPTION, GAP, NOTE, PADDING, SIDE
from alexnet_lab.report.predictions import Prediction, show
from alexnet_lab.runs.checkpoint import Checkpoint, read_checkpoint

IMAGES = 13


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Folders with photographs of ten classes, 13 for training, 13 for evaluation, including a small and a grey one."""
    folder = tmp_path_factory.mktemp("photographs") / "source"
    random = np.random.default_rng(3)
    for split in ("train", "val"):
        for place in range(IMAGES):
            path = folder / split / f"class{place % 10}" / f"{place:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8))
            picture = coarse.resize([(300, 280), (256, 256), (90, 120)][place % 3], Image.Resampling.BICUBIC)
            (picture.convert("L") if place == 4 else picture).save(path)
    prepare_store(folder, folder.parent / "store", name="image_folder", format="uint8", workers=1)
    return folder


@pytest.fixture
def checkpoint(trained_run, composed, source, tmp_path):
    """The checkpoint, LeNet for 28 x 28 pixels, as if it had been trained on the photographs."""

    def write(**changes) -> Path:
        config = composed("prepare", "data=image_folder", "model=lenet", "data.num_classes=10", "data.crop_size=28")
        settings = OmegaConf.to_container(config.data, resolve=True) | {
            "dir": str(source.parent / "store"),
            "crop": "random",
        }
        content = torch.load(trained_run.last, weights_only=True)
        content["config"]["data"] = settings | changes
        restored = Checkpoint(content["config"], content["state_dict"], 0)
        content["preprocessing"] = restored.data({}).preprocessing.facts()
        torch.save(content, tmp_path / "photographs.ckpt")
        return tmp_path / "photographs.ckpt"

    return write


@pytest.mark.parametrize("protocol", ["center", "ten_crop"])
@pytest.mark.parametrize(
    ("mean", "crop"), [("channels", 28), ("channels", 224), ("image_centre", 200), ("image_at_crop", 200)]
)
def test_predictions_for_the_val_split_match_the_metrics_of_evaluate_also_from_the_exported_file(
    composed, checkpoint, source, protocol, mean, crop
) -> None:
    path = checkpoint(mean=mean, crop_size=crop)
    options = [f"checkpoint={path}", f"protocol={protocol}"]
    figures = evaluate(composed("evaluate", *options, "trainer=cpu"))
    export(composed("export", f"checkpoint={path}", "format=state_dict"))
    options[0] = f"checkpoint={path.with_suffix('.weights.pt')}"
    store = f"data.dir={source.parent / 'store'}"
    assert evaluate(composed("evaluate", *options, store, "trainer=cpu")) == pytest.approx(figures, rel=1e-6)
    found = predict(composed("predict", *options, f"images={source}/val", "top=10", "batch_size=5", "accelerator=cpu"))
    assert len(found) == IMAGES
    assert sum(one.rank == 0 for one in found) / IMAGES == figures["test/top1"]
    assert sum(one.rank < 5 for one in found) / IMAGES == figures["test/top5"]
    loss = -np.mean([np.log(dict(one.classes)[one.truth]) for one in found])
    assert loss == pytest.approx(figures["test/loss"], rel=1e-5)


def test_predictions_for_small_images_equal_the_outputs_of_the_network(composed, trained_run, tmp_path) -> None:
    restored = read_checkpoint(trained_run.last)
    data = restored.data({})
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        logits = restored.network()(data.on_after_batch_transfer(batch, 0).images)
    for place, image in enumerate(batch.images[:5]):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{place}.png")
    found = predict(composed("predict", f"checkpoint={trained_run.last}", f"images={tmp_path}", "top=10"))
    for one, row in zip(found, logits.double().softmax(1), strict=False):
        assert one.truth is None
        expected = {f"class {number}": value for number, value in enumerate(row.tolist())}
        assert dict(one.classes) == pytest.approx(expected, abs=1e-6)


def test_script_writes_predictions_and_a_sheet_and_reports_unreadable_images(
    script, checkpoint, source, tmp_path
) -> None:
    folder = tmp_path / "class3"
    shutil.copytree(source / "val" / "class1", folder)
    (folder / "broken.jpg").write_bytes((folder / "001.png").read_bytes()[:900])
    (folder / "note.png").write_text("not an image")
    (folder / "note.txt").write_text("not an image either")
    out, picture = tmp_path / "classes.json", tmp_path / "sheet.png"
    options = (f"images={folder}", "top=10", f"out={out}", f"sheet={picture}", "accelerator=cpu")
    ended = script.run(f"checkpoint={checkpoint()}", *options, program=("src/predict.py",))
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: 2 of 4 images could not be read; all others were predicted\n  ")
    assert "Traceback" not in ended.stderr
    assert "left out (by their names, not opened): 1 .txt" in ended.stdout
    assert "on the 2 images in folders named after a known class" in ended.stdout
    content = json.loads(out.read_text())
    assert [Path(image["path"]).name for image in content["images"]] == ["001.png", "011.png"]
    for image in content["images"]:
        assert image["true_class"] == "class3"
        assert {one["class"] for one in image["classes"]} == {f"class{number}" for number in range(10)}
        values = [one["probability"] for one in image["classes"]]
        assert sum(values) == pytest.approx(1)
        assert values == sorted(values, reverse=True)
    assert [Path(bad["path"]).name for bad in content["failed"]] == ["broken.jpg", "note.png"]
    assert "not an image in a format that Pillow can decode; the content is text" in content["failed"][1]["reason"]
    with Image.open(picture) as sheet:
        assert sheet.size[0] > 500


@pytest.fixture
def sees_bright_spots(checkpoint, tmp_path) -> Path:
    """LeNet whose first class is more probable where a bright spot is."""
    path = checkpoint()
    content = torch.load(path, weights_only=True)
    state = {name: torch.zeros_like(value) for name, value in content["state_dict"].items()}
    state["conv1.weight"][0, :, 2, 2], state["conv1.bias"][0] = 5.0, -8.0
    state["conv2.weight"][0, 0, 2, 2], state["conv2.bias"][0] = 12.0, -6.0
    state["fc3.weight"][0, :100], state["fc4.weight"][0, 0], state["fc5.weight"][0, 0] = 0.1, 1.0, 1.0
    content["preprocessing"] |= {"mean": [0.0], "std": [1.0]}
    torch.save({**content, "state_dict": state}, path)
    return path


def test_gradcam_is_drawn_over_the_crop_that_the_network_sees(composed, sees_bright_spots, tmp_path) -> None:
    pixels = np.zeros((256, 256, 3), np.uint8)  # its centre crop, of 28, begins at 114
    pixels[114 + 6 : 114 + 14, 114 + 16 : 114 + 24] = 255
    pixels[:60] = 200  # not seen
    Image.fromarray(pixels).save(tmp_path / "spot.png")
    options = (f"checkpoint={sees_bright_spots}", f"images={tmp_path}/spot.png", f"sheet={tmp_path}/sheet.png")
    plain = predict(composed("predict", *options))
    found = predict(composed("predict", *options, "explain=gradcam", "explain_class=class0"))
    assert dict(found[0].classes) == pytest.approx(dict(plain[0].classes), rel=1e-6)
    with Image.open(tmp_path / "sheet.png") as picture:
        whole = np.asarray(picture).astype(int)
    shown, file_name = whole[GAP : GAP + SIDE], whole[GAP + SIDE + CAPTION :][: NOTE - 4, GAP : GAP + SIDE]
    assert (file_name < 160).any()
    image, heat = (shown[:, left : left + SIDE] for left in (GAP, GAP + SIDE + PADDING))
    spot = slice(round(6 / 28 * SIDE), round(14 / 28 * SIDE)), slice(round(16 / 28 * SIDE), round(24 / 28 * SIDE))
    assert (image[spot][4:-4, 4:-4] == 255).all()
    assert (image > 128).sum() == pytest.approx(image[spot].size, rel=0.1)
    red = heat[..., 0] - heat[..., 1]
    row, column = (np.median(places) for places in np.nonzero(red >= red.max() - 5))
    # Without padding, the maps cover a little less than the image over which they are enlarged.
    assert (row, column) == pytest.approx((10 / 28 * SIDE, 20 / 28 * SIDE), abs=3.5 / 28 * SIDE)
    assert red[spot].mean() > 60 > 10 > red[SIDE // 2 :].mean()


def test_csv_has_a_row_for_each_class_of_an_image(composed, checkpoint, source, tmp_path) -> None:
    out = tmp_path / "classes.csv"
    options = (f"checkpoint={checkpoint()}", f"images={source}/val/class2", "top=3", f"out={out}")
    found = predict(composed("predict", *options))
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], float(row["probability"])) for row in rows] == [
        pair for one in found for pair in one.classes
    ]
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 2
    assert {row["true_class"] for row in rows} == {"class2"}


def test_wnid_names_the_true_class_even_if_the_network_lacks_it(composed, checkpoint, source, tmp_path) -> None:
    path = checkpoint()
    content = torch.load(path, weights_only=True)
    content["preprocessing"]["classes"][0] = "tench"
    torch.save(content, path)
    for name in ("n01440764", "n01443537", "holiday"):
        (tmp_path / name).mkdir()
        shutil.copy(source / "val" / "class1" / "001.png", tmp_path / name)
    found = predict(composed("predict", f"checkpoint={path}", f"images={tmp_path}"))
    truths = {Path(one.path).parent.name: (one.truth, one.rank is not None) for one in found}
    expected = {"n01440764": ("tench", True), "n01443537": ("goldfish", False), "holiday": (None, False)}
    assert truths == expected


def test_names_of_files_and_classes_cannot_control_the_terminal(composed, checkpoint, source, tmp_path, capsys) -> None:
    path = checkpoint()
    content = torch.load(path, weights_only=True)
    content["preprocessing"]["classes"] = [f"\x1b[31m[bold]{number}" for number in range(10)]
    torch.save(content, path)
    shutil.copy(source / "val" / "class1" / "001.png", tmp_path / "\x1b[31m[red].png")
    predict(composed("predict", f"checkpoint={path}", f"images={tmp_path}"))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[bold]" in shown
    assert "[red]" in shown


def test_table_names_images_relative_to_their_common_folder(tmp_path, capsys) -> None:
    paths = [str(tmp_path / "a" / "1.png"), os.path.relpath(tmp_path / "b" / "2.png")]
    show([Prediction(path, None, [("tench", 1.0)], None) for path in paths], "title")
    shown = capsys.readouterr().out
    assert " a/1.png " in shown
    assert " b/2.png " in shown


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("checkpoint=null", "name a checkpoint: checkpoint=PATH"),
        ("images=null", "name images: images=PATH"),
        ("images=nowhere", "images=nowhere: no such file or folder, and no file matches it as a pattern"),
        ("images=conf", "images=conf: no image found"),
        ("protocol=five_crop", "there is no such protocol; choose from: center, ten_crop"),
        ("protocol=ten_crop", "this network's images are not cropped; choose protocol=center"),
        ("top=0", "top must be a whole number of at least 1, got 0"),
        ("batch_size=many", "batch_size must be a whole number of at least 1, got many"),
        ("out=classes.txt", "out=classes.txt: the name must end in .json or .csv"),
        ("sheet=nowhere/sheet.png", "sheet=nowhere/sheet.png: there is no folder nowhere"),
        ("accelerator=abacus", "accelerator=abacus"),
        ("precision=3", "precision: 3 does not fit"),
        ("precision=0", "precision: 0 does not fit"),
        ("precision=[]", "precision: \\[\\] does not fit"),
        ("accelerator=[]", "accelerator: \\[\\] does not fit: Input should be a valid string"),
        ("out=/proc/classes.json", "out=/proc/classes.json: no file can be written in /proc"),
        ("sheet=/proc/sheet.png", "sheet=/proc/sheet.png: no file can be written in /proc"),
        ("explain=lime", "explain=lime: there is no such method; choose gradcam"),
        ("explain=gradcam", "explain=gradcam is drawn on the sheet: name one, sheet=FILE.png"),
        ("explain_class=3", "explain_class needs explain=gradcam"),
    ],
)
def test_wrong_option_is_named_with_its_remedy(composed, trained_run, tmp_path, override, message) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "black.png")
    options = (f"checkpoint={trained_run.last}", f"images={tmp_path}", override)
    with pytest.raises(UserError, match=message):
        predict(composed("predict", *options))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("protocol=ten_crop", "explain=gradcam explains one view of each image; choose protocol=center"),
        ("explain_class=clas3", "explain_class=clas3: no class has this name.*, did you mean class3?"),
        (
            "explain_class=12",
            "explain_class=12: no class has this name, or this index from 0 to 9: the classes are class0",
        ),
        ("explain_class=crane", r"explain_class=crane: 2 classes have this name; choose an index: \[4, 7\]"),
        ("explain_class=[1]", r"explain_class: \[1\] does not fit"),
    ],
)
def test_wrong_class_to_explain_is_named(composed, checkpoint, source, tmp_path, override, message) -> None:
    path = checkpoint()
    content = torch.load(path, weights_only=True)
    content["preprocessing"]["classes"][4] = content["preprocessing"]["classes"][7] = "crane"
    torch.save(content, path)
    options = (f"checkpoint={path}", f"images={source}/val", "explain=gradcam", f"sheet={tmp_path}/sheet.png", override)
    with pytest.raises(UserError, match=message):
        predict(composed("predict", *options))


def test_preprocessing_of_another_kind_is_refused(composed, trained_run, tmp_path) -> None:
    content = torch.load(trained_run.last, weights_only=True)
    content["preprocessing"]["channels"] = 4
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="preprocessing is not supported: channels: Input should be 1 or 3"):
        predict(composed("predict", f"checkpoint={tmp_path}/other.ckpt", f"images={tmp_path}"))
