import numpy as np
import pytest
import torch
from PIL import Image

from alexnet_lab.commands.describe import describe
from alexnet_lab.config.build import build
from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.description.data import data
from alexnet_lab.errors import UserError

FIRST, NEXT = 12, 12 + 112 + 12 + 16
"""Left side of the first and second column, in pixels."""
GREY = (
    *("model=lenet", "data=synthetic", "data.channels=1", "data.stored_size=28", "data.train_size=75"),
    *("data.val_size=8", "data.batch_size=25", "data.crop=random", "data.flip=0.5", "data.rotation=20"),
    "data.jitter=0.2",
)


def cell(path, row: int, column: int, height: int) -> torch.Tensor:
    """The pixels of a cell of the sheet, uint8 [28, 28]; column 0 is the evaluation's."""
    left = FIRST if column == 0 else NEXT + (column - 1) * 124
    top = 12 + 24 + row * height
    whole = np.asarray(Image.open(path).convert("L"))
    return torch.from_numpy(whole[top : top + 112 : 4, left : left + 112 : 4].copy())


@pytest.mark.parametrize("mixing", [(), ("data.mixup_alpha=0.5", "data.cutmix_alpha=1")])
def test_cells_are_the_images_of_the_runs_batches(settings, tmp_path, capsys, mixing) -> None:
    chosen = settings(*GREY, *mixing)
    data(chosen, [tmp_path / "new" / "sheet.png"])
    assert capsys.readouterr().out.splitlines()[-1] == f"written: {tmp_path}/new/sheet.png"
    module: ImageDataModule = build(chosen["data"], "data", ImageDataModule)
    loader = module.train_dataloader()
    images: dict[tuple[int, int], torch.Tensor] = {}
    for epoch in (0, 3):
        loader.batch_sampler.sampler.set_epoch(epoch)
        for raw in loader:
            batch = module.on_after_batch_transfer(raw, 0)
            for sample, image in zip(batch.samples.tolist(), batch.images, strict=True):
                images[epoch, sample] = (image[0] * 255).round().clamp(0, 255).byte()
    first = [sample for epoch, sample in images if epoch == 0][:8]
    split = module.dataset.split("train")
    for row, sample in enumerate(first):
        height = 112 + 20 + (16 if mixing else 0) + 12
        where = tmp_path / "new" / "sheet.png"
        assert torch.equal(cell(where, row, 0, height), torch.from_numpy(split.image(sample)[0]))
        assert torch.equal(cell(where, row, 1, height), images[0, sample])
        assert torch.equal(cell(where, row, 4, height), images[3, sample])


def test_steps_to_the_networks_input_are_printed_in_their_order(settings, capsys) -> None:
    data(settings(*GREY, "data.mixup_alpha=0.5"), [])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "images: 75 train, 8 val, 128 test"
    assert [line.partition(". ")[2] for line in lines[3:]] == [
        "stored image: 1 x 28 x 28",
        "training only: moved by up to 4 pixels in each direction, black outside of the image",
        "training only: mirror image, probability 0.5",
        "training only: rotation by up to 20 degrees in both directions",
        "division by 255: pixels in [0, 1]",
        "training only: brightness and contrast times 0.8 to 1.2",
        "minus mean 0",
        "divided by std 1",
        "training only: mixup of pairs, shares from Beta(0.5, 0.5)",
        "network's input: 1 x 28 x 28",
    ]


def test_missing_folder_and_wrong_suffix_are_reported(composed, settings) -> None:
    with pytest.raises(UserError, match=r"^there is no folder /nowhere"):
        data(settings("data=image_folder", "data.dir=/nowhere"), [])
    with pytest.raises(UserError, match=r"^out=sheet\.svg: the name must end in \.png$"):
        describe(composed("describe", "what=data", "out=sheet.svg"))
