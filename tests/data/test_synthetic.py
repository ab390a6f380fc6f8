import numpy as np
import pytest
import torch

from alexnet_lab.data.synthetic import synthetic
from alexnet_lab.errors import UserError

SETTINGS = {
    "name": "synthetic",
    "num_classes": 10,
    "channels": 3,
    "mean": [0.0],
    "std": [1.0],
    "stored_size": 32,
    "train_size": 512,
    "val_size": 128,
    "test_size": 64,
    "image_size": 32,
    "batch_size": 32,
    "eval_batch_size": 64,
    "split_seed": 0,
    "seed": 0,
}


def made(split="train", **changes):
    return synthetic(**SETTINGS | changes).dataset.split(split)


def test_shapes_and_balance():
    split = made(channels=5, stored_size=3, num_classes=7, train_size=70)
    assert (split.images.shape, split.images.dtype) == ((70, 5, 3, 3), np.uint8)
    assert np.bincount(split.labels).tolist() == [10] * 7
    assert len(made("test").rows) == 64


def test_images_depend_on_the_split_seed_and_not_on_the_seed():
    assert np.array_equal(made().images, made(seed=5).images)
    assert not np.array_equal(made().images, made(split_seed=5).images)
    assert not np.array_equal(made("val").images, made("train").images[:128])


def test_linear_net_learns_the_data_in_fifty_steps():
    torch.manual_seed(0)
    module = synthetic(**SETTINGS)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    loader = module.train_dataloader()
    for epoch in range(4):
        loader.batch_sampler.sampler.set_epoch(epoch)
        for batch in loader:
            images = module.on_after_batch_transfer(batch, 0).images
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(images), batch.labels).backward()
            optimizer.step()
    split = module.dataset.split("test")
    predicted = net(module.pipeline(torch.from_numpy(split.images))).argmax(1)
    assert (predicted.numpy() == split.labels).mean() > 0.95


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_classes", 0), ("channels", 0), ("train_size", 0), ("val_size", -1), ("stored_size", 0), ("split_seed", -1)],
)
def test_values_out_of_range_are_reported(key, value):
    with pytest.raises(UserError, match=f"data.{key} must"):
        synthetic(**SETTINGS | {key: value})
