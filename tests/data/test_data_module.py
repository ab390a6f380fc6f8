from functools import partial
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from alexnet_lab.data.module import ImageDataModule
from alexnet_lab.data.prefetch import prefetched
from alexnet_lab.data.synthetic import synthetic
from alexnet_lab.errors import UserError

# Lightning must not warn about loaders that are not torch's.
SRUN = "ignore:The `srun` command is available"  # where Slurm is installed
pytestmark = pytest.mark.filterwarnings("error", "ignore::FutureWarning", "ignore::DeprecationWarning", SRUN)

SETTINGS = {
    "name": "synthetic",
    "num_classes": 3,
    "channels": 1,
    "mean": [0.0],
    "std": [1.0],
    "stored_size": 8,
    "train_size": 23,
    "val_size": 7,
    "test_size": 5,
    "image_size": 8,
    "batch_size": 4,
    "eval_batch_size": 4,
    "split_seed": 0,
    "seed": 0,
}


@pytest.fixture
def feed(request, monkeypatch):
    """Batches as on the CPU, or prefetched as on a GPU."""
    if request.param == "prefetched":
        plain = ImageDataModule._loader

        def loader(self, *arguments):
            made = plain(self, *arguments)
            made.prefetch = partial(prefetched, prepare=self.prepared, device=torch.device("cpu"))
            return made

        monkeypatch.setattr(ImageDataModule, "_loader", loader)


both = pytest.mark.parametrize("feed", ["plain", "prefetched"], indirect=True)


class Net(LightningModule):
    """A linear classifier that records its samples, by kind of step and epoch."""

    def __init__(self, inputs=64):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(inputs, 3)
        self.seen = []

    def _step(self, kind, batch):
        self.seen.append((kind, self.current_epoch, batch.samples.tolist()))
        logits = self.net(batch.images.flatten(1))
        return torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum") / batch.global_size

    def training_step(self, batch):
        return self._step("train", batch) * self.trainer.accumulate_grad_batches

    def validation_step(self, batch):
        self._step("val", batch)

    def test_step(self, batch):
        self._step("test", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def samples(self, kind, epoch=0):
        return [samples for seen, at, samples in self.seen if (seen, at) == (kind, epoch)]


class SaveAt(Callback):
    def __init__(self, path, epoch, micro_batch):
        self.path, self.at = path, (epoch, micro_batch)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx + 1) == self.at:
            trainer.save_checkpoint(self.path)


class SaveAfterValidation(Callback):
    def __init__(self, path, number):
        self.path, self.left = path, number

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.left -= 1
            if self.left == 0:
                trainer.save_checkpoint(self.path)


class SaveAfterEpoch(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.path)


def module(**changes):
    return synthetic(**SETTINGS | changes)


def trainer(tmp_path, **settings):
    defaults = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    defaults |= {"enable_model_summary": False, "max_epochs": 3, "default_root_dir": tmp_path}
    return Trainer(**defaults | settings)


@both
def test_fit_and_test_see_every_sample_once_per_epoch_in_a_new_order(tmp_path, feed):
    net, data = Net(), module()
    loop = trainer(tmp_path, num_sanity_val_steps=0)
    loop.fit(net, datamodule=data)
    epochs = [net.samples("train", epoch) for epoch in range(3)]
    for batches in epochs:
        assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 3]
        assert sorted(chain(*batches)) == list(range(23))
    assert epochs[0] != epochs[1] != epochs[2]
    assert all(net.samples("val", epoch) == [[0, 1, 2, 3], [4, 5, 6]] for epoch in range(3))
    loop.test(net, datamodule=data, verbose=False)
    assert net.samples("test", 3) == [[0, 1, 2, 3], [4]]


def test_order_equals_that_of_the_loader_without_a_trainer(tmp_path):
    net, data = Net(), module()
    trainer(tmp_path, max_epochs=2).fit(net, datamodule=data)
    alone = module().train_dataloader()
    alone.batch_sampler.sampler.set_epoch(1)
    assert net.samples("train", 1) == [batch.samples.tolist() for batch in alone]


@both
def test_mid_epoch_validation_and_reloading_do_not_change_the_order(tmp_path, feed):
    plain, other = Net(), Net()
    trainer(tmp_path, limit_val_batches=0).fit(plain, datamodule=module())
    trainer(tmp_path, val_check_interval=2, reload_dataloaders_every_n_epochs=1).fit(other, datamodule=module())
    assert [plain.samples("train", epoch) for epoch in range(3)] == [
        other.samples("train", epoch) for epoch in range(3)
    ]


@both
def test_limits_fast_dev_run_and_overfitting(tmp_path, feed):
    net = Net()
    trainer(tmp_path, limit_train_batches=2, limit_val_batches=1).fit(net, datamodule=module())
    assert [len(net.samples("train", epoch)) for epoch in range(3)] == [2, 2, 2]
    net = Net()
    trainer(tmp_path, fast_dev_run=True).fit(net, datamodule=module())
    assert len(net.samples("train")) == 1
    net = Net()
    trainer(tmp_path, overfit_batches=2).fit(net, datamodule=module())
    assert [net.samples("train", epoch) for epoch in range(3)] == [[[0, 1, 2, 3], [4, 5, 6, 7]]] * 3


@both
def test_validating_before_fitting_with_a_resize(tmp_path, feed):
    net, data = Net(inputs=256), module(image_size=16)
    loop = trainer(tmp_path, max_epochs=1)
    loop.validate(net, datamodule=data, verbose=False)
    loop.fit(net, datamodule=data)
    assert len(net.samples("train")) == 6


@both
def test_true_double_precision_reaches_the_images(tmp_path, feed):
    net = Net()
    trainer(tmp_path, max_epochs=1, precision="64-true").fit(net, datamodule=module())
    assert net.net.weight.dtype == torch.float64


@both
def test_accumulation_gives_the_same_weights(tmp_path, feed):
    nets = [Net(), Net()]
    for net, accumulate in zip(nets, (1, 3), strict=True):
        trainer(tmp_path, accumulate_grad_batches=accumulate).fit(net, datamodule=module())
    assert len(nets[1].samples("train")) == 18
    torch.testing.assert_close(nets[0].net.weight, nets[1].net.weight)


@both
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("epoch", "step"), [(0, 1), (1, 3), (1, 6), (2, 5)])
def test_a_run_resumed_in_mid_epoch_equals_the_uninterrupted_run(tmp_path, feed, accumulate, epoch, step):
    path = tmp_path / "position.ckpt"
    whole = Net()
    save = SaveAt(path, epoch, step * accumulate)
    settings = {"accumulate_grad_batches": accumulate, "limit_val_batches": 0}
    trainer(tmp_path, callbacks=[save], **settings).fit(whole, datamodule=module())
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["ImageDataModule"].items() >= {"epoch": epoch, "step": step}.items()

    resumed = Net()
    trainer(tmp_path, **settings).fit(resumed, datamodule=module(), ckpt_path=path)
    done = sum(len(whole.samples("train", past)) for past in range(epoch)) + step * accumulate
    assert [seen[2] for seen in resumed.seen] == [seen[2] for seen in whole.seen[done:]]
    assert torch.equal(resumed.net.weight, whole.net.weight)


@both
@pytest.mark.parametrize(
    ("number", "epoch", "step"), [(1, 0, 2), (3, 0, 6), (5, 1, 4)], ids=["mid-epoch", "end of epoch", "second epoch"]
)
def test_a_run_resumed_after_a_validation_equals_the_uninterrupted_run(tmp_path, feed, number, epoch, step):
    path = tmp_path / "position.ckpt"
    whole, resumed = Net(), Net()
    save = SaveAfterValidation(path, number)
    trainer(tmp_path, val_check_interval=2, callbacks=[save]).fit(whole, datamodule=module())
    assert torch.load(path, weights_only=True)["ImageDataModule"].items() >= {"epoch": epoch, "step": step}.items()
    trainer(tmp_path, val_check_interval=2).fit(resumed, datamodule=module(), ckpt_path=path)
    trained = [[samples for kind, _, samples in net.seen if kind == "train"] for net in (whole, resumed)]
    assert trained[1] == trained[0][epoch * 6 + step :]
    assert torch.equal(resumed.net.weight, whole.net.weight)


@both
def test_a_run_resumed_between_epochs_equals_the_uninterrupted_run(tmp_path, feed):
    path = tmp_path / "position.ckpt"
    whole, resumed = Net(), Net()
    trainer(tmp_path, callbacks=[SaveAfterEpoch(path)]).fit(whole, datamodule=module())
    assert torch.load(path, weights_only=True)["ImageDataModule"].items() >= {"epoch": 2, "step": 0}.items()
    trainer(tmp_path).fit(resumed, datamodule=module(), ckpt_path=path)
    assert resumed.samples("train", 2) == whole.samples("train", 2)
    assert torch.equal(resumed.net.weight, whole.net.weight)


def test_position_is_valid_for_other_ranks_and_accumulation():
    whole = [batch.samples.tolist() for batch in module(seed=3).train_dataloader()]
    seen = []
    for rank in range(2):
        data = module(seed=3)
        data.trainer = stand_in(rank, world_size=2, accumulate=3)
        data.load_state_dict({"epoch": 0, "step": 4})
        seen += [sample for batch in data.train_dataloader() for sample in batch.samples.tolist()]
    assert sorted(seen) == sorted(chain(*whole[4:]))


def test_data_that_changed_since_the_checkpoint_is_refused_or_reported(caplog):
    data = module()
    state = data.state_dict()
    with pytest.raises(UserError, match="changed since the checkpoint: class 1 was other, it is class 1"):
        data.load_state_dict(state | {"classes": ["class 0", "other", *state["classes"][2:]]})
    with pytest.raises(UserError, match="class 3 was class 3, it is no class"):
        data.load_state_dict(state | {"classes": [*state["classes"], "class 3"]})
    data.load_state_dict(state)
    data.load_state_dict({"epoch": 0, "step": 0})  # of older checkpoints
    assert caplog.text == ""
    data.load_state_dict(state | {"images": 99})
    assert "99 training images then, " in caplog.text


def test_new_fit_resets_the_position():
    data = module()
    data.load_state_dict({"epoch": 0, "step": 4})
    assert len(list(data.train_dataloader())) == 2
    assert data.state_dict().items() >= {"epoch": 0, "step": 4}.items()
    data.setup("fit")
    assert len(list(data.train_dataloader())) == 6


@pytest.mark.parametrize("world_size", [2, 3])
def test_evaluation_over_ranks_counts_every_sample_once(world_size):
    data = module()
    seen, lengths = [], set()
    for rank in range(world_size):
        data.trainer = stand_in(rank, world_size, accumulate=2)
        batches = list(data.val_dataloader())
        lengths.add(len(batches))
        seen += [sample for batch in batches for sample in batch.samples.tolist()]
    assert sorted(seen) == list(range(7))
    assert lengths == {2}


def test_preprocessing_is_plain_and_complete():
    assert module(mean=[0.5], std=[0.25]).preprocessing.facts() == {
        "image_size": 8,
        "resize": "bilinear",
        "channels": 1,
        "mean": [0.5],
        "std": [0.25],
        "classes": ["class 0", "class 1", "class 2"],
        "transparency": "white",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "data.batch_size must be at least 1, got 0"),
        ({"eval_batch_size": -1}, "data.eval_batch_size must be at least 1, got -1"),
        ({"image_size": 0}, "model.image_size must be at least 1, got 0"),
        ({"seed": -1}, "data.seed"),
        ({"mean": [0.1, 0.2]}, "data.mean needs one value, or one for each of 1 channels, got 2"),
        ({"std": [0.0]}, "data.std must be positive"),
    ],
)
def test_wrong_values_are_reported(changes, message):
    with pytest.raises(UserError, match=message):
        module(**changes)


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "mps"])
def test_only_loaders_of_a_gpu_prefetch_onto_it(device):
    data = module()
    data.trainer = stand_in(0, 1, accumulate=1, device=device)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        found = loader.prefetch and loader.prefetch.keywords
        assert found == ({"prepare": data.prepared, "device": torch.device(device)} if device == "cuda:1" else None)


def stand_in(rank, world_size, accumulate, device="cpu"):
    """The part of a Trainer that the loaders read, to simulate ranks."""
    return SimpleNamespace(
        distributed_sampler_kwargs={"rank": rank, "num_replicas": world_size},
        accumulate_grad_batches=accumulate,
        overfit_batches=0,
        strategy=SimpleNamespace(root_device=torch.device(device)),
    )


def test_dataset_without_a_member_is_refused_before_training():
    class Dataset:
        def __init__(self):
            self.spec = None

        def prepare(self): ...

        def split(self, name): ...

    with pytest.raises(UserError, match=r"Dataset has no contents, places; see ImageDataset in data/dataset\.py"):
        ImageDataModule(Dataset(), image_size=8, batch_size=4, eval_batch_size=4, seed=0)
