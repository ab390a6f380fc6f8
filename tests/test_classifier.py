"""The gradient of a global batch does not depend on how it is split; dropout depends only on (seed, step, rank)."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout
from torch.optim.swa_utils import AveragedModel

from alexnet_lab.classifier import ImageClassifier
from alexnet_lab.data.spec import Batch
from alexnet_lab.errors import RunFailed, UserError
from alexnet_lab.loss import CROSS_ENTROPY, TrainingLoss


def classifier_in(
    net: nn.Module, seed: int = 0, loss: TrainingLoss = CROSS_ENTROPY, **trainer: object
) -> ImageClassifier:
    """A classifier attached to a mock trainer with these attributes."""
    module = ImageClassifier(net, lambda named: torch.optim.SGD(dict(named).values(), lr=0.1), None, seed, loss)  # type: ignore[arg-type]
    facts: dict[str, Any] = {"world_size": 1, "global_rank": 0, "accumulate_grad_batches": 1}
    facts |= {"current_epoch": 0, "global_step": 0, "log_every_n_steps": 10**9} | trainer
    kwargs = {"rank": facts["global_rank"], "num_replicas": facts["world_size"]}
    module._trainer = SimpleNamespace(**facts, distributed_sampler_kwargs=kwargs)  # type: ignore[assignment]
    return module


def small_net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def gradients(net: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in net.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("size", [32, 5, 3, 1])
@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 3)])
def test_split_gradient_equals_the_gradient_of_the_global_batch(size: int, world_size: int, accumulate: int) -> None:
    images, labels = torch.randn(size, 1, 4, 4, dtype=torch.float64), torch.randint(3, (size,))
    whole = small_net()
    cross_entropy(whole(images), labels).backward()

    net = small_net()
    module = classifier_in(net, world_size=world_size, accumulate_grad_batches=accumulate)
    parts = world_size * accumulate
    for part in range(parts):  # some are empty when the batch is small
        mine = slice(part, None, parts)
        batch = Batch(images[mine], labels[mine], torch.arange(size)[mine], global_size=size)
        # DDP takes the mean over the ranks, lightning divides by the number of micro-batches.
        (module.training_step(batch, batch_idx=part // world_size) / parts).backward()

    torch.testing.assert_close(gradients(net), gradients(whole), rtol=1e-12, atol=1e-14)
    assert module.train_metrics.compute()["count"] == size


def mask(epoch: int, batch_idx: int, rank: int, seed: int) -> Tensor:
    module = classifier_in(nn.Identity(), seed=seed, current_epoch=epoch, global_rank=rank)
    module.on_train_batch_start(None, batch_idx)  # type: ignore[arg-type]
    return dropout(torch.ones(200), 0.5)


def test_dropout_is_a_function_of_seed_step_and_rank() -> None:
    first = mask(epoch=0, batch_idx=3, rank=1, seed=7)
    torch.rand(12345)  # independent of draws in between
    assert torch.equal(mask(epoch=0, batch_idx=3, rank=1, seed=7), first)
    assert not torch.equal(mask(epoch=0, batch_idx=3, rank=1, seed=8), first)
    assert not torch.equal(mask(epoch=0, batch_idx=4, rank=1, seed=7), first)
    assert not torch.equal(mask(epoch=1, batch_idx=3, rank=1, seed=7), first)
    assert not torch.equal(mask(epoch=0, batch_idx=3, rank=0, seed=7), first)


def test_state_dict_has_the_keys_of_the_network() -> None:
    net = small_net()
    module = classifier_in(net)
    assert list(module.state_dict()) == list(net.state_dict()) == ["1.weight", "1.bias", "3.weight", "3.bias"]
    module.load_state_dict({name: torch.zeros_like(value) for name, value in net.state_dict().items()})
    assert all(parameter.abs().sum() == 0 for parameter in net.parameters())


def test_copy_with_averaged_weights_loads_its_own_state() -> None:
    module = classifier_in(small_net())
    average = AveragedModel(module, use_buffers=True)
    average.update_parameters(module)
    state = average.state_dict()
    assert list(state) == ["n_averaged", *(f"module.{name}" for name in module.state_dict())]
    other = AveragedModel(classifier_in(small_net()), use_buffers=True)
    other.load_state_dict({name: value + 1 for name, value in state.items()})
    assert all(torch.equal(value, state[name] + 1) for name, value in other.state_dict().items())


def test_changing_accumulation_during_the_run_is_refused() -> None:
    facts = {"num_training_batches": 8, "accumulate_grad_batches": 1, "estimated_stepping_batches": 12.0}
    module = classifier_in(small_net(), fit_loop=SimpleNamespace(setup_data=lambda: None), **facts)
    module._scheduler = lambda *_: None  # type: ignore[assignment, return-value]
    module.configure_optimizers()
    module.on_train_batch_start(None, 0)  # type: ignore[arg-type]
    module.trainer.accumulate_grad_batches = 4
    with pytest.raises(RunFailed, match=r"^trainer\.accumulate_grad_batches was changed from 1 to 4 during the run"):
        module.on_train_batch_start(None, 1)  # type: ignore[arg-type]


def test_dropout_on_apples_gpu_is_seeded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.mps, "manual_seed", seeds.append)
    monkeypatch.setattr(ImageClassifier, "device", torch.device("mps", 0))
    module = classifier_in(nn.Identity())
    for batch_idx in (0, 1, 0):
        module.on_train_batch_start(None, batch_idx)  # type: ignore[arg-type]
    assert seeds[0] == seeds[2] != seeds[1]


def test_schedule_receives_optimizer_steps_not_micro_batches() -> None:
    received = {}

    def schedule(optimizer: torch.optim.Optimizer, steps_per_epoch: int, total_steps: int) -> None:
        received.update(steps_per_epoch=steps_per_epoch, total_steps=total_steps)

    facts: dict[str, Any] = {
        "num_training_batches": 8,
        "accumulate_grad_batches": 2,
        "estimated_stepping_batches": 12.0,
    }
    module = classifier_in(small_net(), fit_loop=SimpleNamespace(setup_data=lambda: None), **facts)
    module._scheduler = schedule  # type: ignore[assignment]
    module.configure_optimizers()
    assert received == {"steps_per_epoch": 4, "total_steps": 12}


def test_limit_that_cuts_a_global_batch_is_refused() -> None:
    facts = {"num_training_batches": 7, "accumulate_grad_batches": 2, "estimated_stepping_batches": 12.0}
    module = classifier_in(small_net(), fit_loop=SimpleNamespace(setup_data=lambda: None), **facts)
    with pytest.raises(UserError, match=r"7 is not a multiple of trainer\.accumulate_grad_batches=2"):
        module.configure_optimizers()


def test_run_without_an_end_is_refused() -> None:
    loop = SimpleNamespace(setup_data=lambda: None)
    module = classifier_in(small_net(), estimated_stepping_batches=float("inf"), fit_loop=loop)
    with pytest.raises(UserError, match=r"max_epochs=-1 needs trainer\.max_steps"):
        module.configure_optimizers()


def evaluated(global_size: int) -> ImageClassifier:
    """A classifier after evaluating one batch of three samples that claims a global batch of `global_size`."""
    module = classifier_in(small_net(), loggers=[], is_global_zero=True, lr_scheduler_configs=[])
    module.log_dict = lambda figures, logger: None  # type: ignore[assignment,method-assign]
    module.on_validation_epoch_start()
    images = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    module.validation_step(Batch(images, torch.tensor([0, 1, 2]), torch.arange(3), global_size), 0)
    return module


def test_evaluation_asserts_that_every_sample_was_counted_once() -> None:
    evaluated(3).on_validation_epoch_end()
    with pytest.raises(AssertionError, match="3 of 4 samples were counted"):
        evaluated(4).on_validation_epoch_end()
