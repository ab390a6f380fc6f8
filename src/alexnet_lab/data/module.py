"""The one LightningDataModule: a dataset object, the global order, and the input pipeline on the device."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from alexnet_lab.data.augment import ten_views
from alexnet_lab.data.class_weights import ClassWeights, weights_of
from alexnet_lab.data.contents import check_unchanged
from alexnet_lab.data.dataset import ImageDataset, SplitName, check_members
from alexnet_lab.data.draws import Augmentation
from alexnet_lab.data.gather import PixelFile
from alexnet_lab.data.loader import BatchLoader, default_workers
from alexnet_lab.data.mixing import UNMIXED, Mixing, mixed
from alexnet_lab.data.pipeline import InputPipeline
from alexnet_lab.data.prefetch import prefetched
from alexnet_lab.data.preprocessing import Preprocessing
from alexnet_lab.data.sampler import EpochOrder, GlobalBatchSampler
from alexnet_lab.data.spec import Batch, DataSpec, different_class
from alexnet_lab.data.stream.reading import chunks_of
from alexnet_lab.distributed import replica
from alexnet_lab.errors import UserError
from alexnet_lab.position import position_of

Protocol = Literal["center", "ten_crop"]


class ImageDataModule(LightningDataModule):
    """Everything before the network. Datasets pass in an object; they do not subclass.

    Rank, number of ranks and accumulation come from the Trainer; without a Trainer they are 0, 1, 1.

    Args:
        dataset: provides the splits and their facts.
        image_size: side of the network's square input images.
        batch_size: samples per optimizer step, over all ranks and accumulated micro-batches.
        eval_batch_size: samples per evaluation step, over all ranks.
        seed: determines the training order, not the splits.
        channels_last: memory format of the network's input images.
        augmentation: draws the window and the augmentation of training images; None: whole images, unchanged.
        pipeline: creates the input pipeline at first use, when the data must exist; by default it normalises by the
            dataset's `mean` and `std`.
        workers: prefetching threads; None: see `default_workers`; 0: none, which is fastest for data in memory.
        mixing: how training images are mixed in pairs; by default not at all.

    Raises:
        UserError: a value is out of range, or the dataset lacks a member of `ImageDataset`.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        image_size: int,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        channels_last: bool = True,
        augmentation: Augmentation | None = None,
        pipeline: Callable[[], InputPipeline] | None = None,
        workers: int | None = 0,
        mixing: Mixing = UNMIXED,
    ) -> None:
        super().__init__()
        check_members(dataset)
        sizes = {"model.image_size": image_size, "data.batch_size": batch_size, "data.eval_batch_size": eval_batch_size}
        for key, size in sizes.items():
            if size < 1:
                raise UserError(f"{key} must be at least 1, got {size}")
        if mixing and batch_size < 2:
            raise UserError(f"mixing images needs data.batch_size of at least 2, got {batch_size}")
        if not 0 <= seed < 2**63:
            raise UserError(f"data.seed must be in [0, 2**63), got {seed}")
        if workers is not None and workers < 0:
            raise UserError(f"data.workers must not be negative, got {workers}")
        self.dataset = dataset
        self.image_size = image_size
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.channels_last = channels_last
        self.augmentation = augmentation
        self.crop_size = augmentation.crop_size if augmentation else None
        self.workers = workers
        self.mixing = mixing
        self.class_weights: ClassWeights = None
        self.protocol: Protocol = "center"
        self.in_turns = False
        self._make_pipeline = pipeline
        self._start = {"epoch": 0, "step": 0}

    @property
    def spec(self) -> DataSpec:
        return self.dataset.spec

    @cached_property
    def pipeline(self) -> InputPipeline:
        """Stored pixels to the network's input."""
        if self._make_pipeline:
            return self._make_pipeline()
        return InputPipeline(self.image_size, self.spec.mean, self.spec.std, self.channels_last)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of pixels, and the names of the classes."""
        size, mean_image = self.crop_size, self.pipeline.mean_image if self.crop_size else None
        # Not validated: a run may train on data that `predict` does not support.
        return Preprocessing.model_construct(
            image_size=self.image_size,
            resize="bilinear",
            channels=self.spec.channels,
            mean=list(self.spec.mean),
            std=list(self.spec.std),
            classes=list(self.spec.classes),
            transparency=self.spec.transparency,
            stored_size=self.dataset.split("val").images.shape[2] if size else None,
            crop_size=size,
            mean_image=mean_image.centre(size).cpu().clone() if mean_image and size else None,
            whole_mean_image=mean_image.pixels.cpu() if mean_image and mean_image.at_crop else None,
        )

    def evaluate_by(self, protocol: Protocol) -> None:
        """Evaluate on the centre or on `ten_views` of each image, the ranks in turns with whole batches; never train.

        Raises:
            UserError: the dataset's images are not cropped, so there are no views.
        """
        if protocol == "ten_crop" and self.crop_size is None:
            raise UserError(f"protocol=ten_crop: {self.spec.name} is not cropped; choose protocol=center")
        self.protocol, self.in_turns = protocol, True

    def prepare_data(self) -> None:
        self.dataset.prepare()

    def setup(self, stage: str) -> None:
        self._start = {"epoch": 0, "step": 0}
        names: dict[str, tuple[SplitName, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        for name in names.get(stage, ()):
            self.dataset.split(name)
        if stage == "fit":
            self.weights_of_classes()  # an impossible setting is reported before training

    def weights_of_classes(self) -> tuple[float, ...] | None:
        """The weight of each class in the training objective, by `class_weights`; None: equal. See `weights_of`."""
        if self.class_weights is None:
            return None
        split = self.dataset.split("train")
        return weights_of(self.class_weights, split.labels[split.rows], self.spec.classes)

    def train_dataloader(self) -> BatchLoader:
        assert self.protocol == "center"
        accumulate = self.trainer.accumulate_grad_batches if self.trainer else 1
        # Overfitting a few batches needs the same batches in every epoch.
        shuffled = not getattr(self.trainer, "overfit_batches", 0)
        loader = self._loader("train", self.batch_size, self.augmentation, shuffled, accumulate)
        loader.start_at(self._start["epoch"], self._start["step"] * accumulate)
        return loader

    def val_dataloader(self) -> BatchLoader:
        return self._loader("val", self.eval_batch_size, self.evaluation_views())

    def test_dataloader(self) -> BatchLoader:
        return self._loader("test", self.eval_batch_size, self.evaluation_views())

    def evaluation_views(self) -> Augmentation | None:
        """None, which means the whole stored image: the views are cropped on the device."""
        cropped = self.augmentation if self.crop_size and self.protocol == "center" else None
        return cropped and cropped.for_evaluation()

    def _loader(
        self,
        name: SplitName,
        batch_size: int,
        augmentation: Augmentation | None,
        shuffled: bool = False,
        accumulate: int = 1,
    ) -> BatchLoader:
        split, rank, replicas, device = self.dataset.split(name), 0, 1, torch.device("cpu")
        if self.trainer:
            rank, replicas = replica(self.trainer)
            device = self.trainer.strategy.root_device
        order = EpochOrder(len(split.rows), self.seed, shuffled, chunks_of(split))
        mix, weights = None, None
        if name == "train":
            mix = partial(self.mixing.draw, self.image_size) if self.mixing else None
            # Mixed labels are probabilities, with which torch divides the loss by the number of samples.
            of_classes = None if mix else self.weights_of_classes()
            weights = None if of_classes is None else np.array(of_classes)[split.labels[split.rows]]
        together, whole = 2 if mix else 1, self.in_turns
        batches = GlobalBatchSampler(order, batch_size, rank, replicas, accumulate, together, weights, whole)
        workers, on_gpu = self.workers, device.type == "cuda"
        if workers is None:
            few = on_gpu and isinstance(split.images, PixelFile)
            workers = default_workers(self.trainer.num_devices if self.trainer else 1, few)
        prefetch = partial(prefetched, prepare=self.prepared, device=device) if on_gpu else None
        return BatchLoader(split, batches, augmentation, workers, on_gpu, prefetch, mix)

    def prepared(self, batch: Batch) -> Batch:
        """What Lightning does with a batch before a step; of a batch that is prepared, it then changes nothing."""
        assert self.trainer
        batch = self.transfer_batch_to_device(batch, self.trainer.strategy.root_device, 0)
        batch = self.trainer.precision_plugin.convert_input(batch)  # here, since it leaves page-locked memory
        return self.on_after_batch_transfer(batch, 0)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        if batch.images.device == device:
            return batch
        return batch.each(lambda tensor: tensor.to(device, non_blocking=True))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Stored pixels to the network's input, on the device, in the precision that the Trainer computes in."""
        images, draws = batch.images, batch.draws
        if images.is_floating_point():  # prefetched
            return batch
        if self.protocol == "ten_crop":
            assert self.crop_size is not None
            images, draws = ten_views(images, self.crop_size)
        images = self.pipeline(images, draws)
        if batch.mixture is not None:
            images = mixed(images, batch.mixture)
        if self.trainer:
            images = self.trainer.precision_plugin.convert_input(images)
        return batch._replace(images=images)

    def state_dict(self) -> dict[str, Any]:
        """The position in the data: `epoch`, and `step`, the optimizer steps (global batches) done in that epoch.

        Counted in steps, it holds for any number of ranks and any accumulation. Exact at the end of an optimizer step.
        Also `classes`, the number of training `images` and the `contents` of each split, for comparison.
        """
        facts = {"classes": list(self.spec.classes), "images": len(self.dataset.split("train").rows)}
        contents = {split: list(held) for split, held in self.dataset.contents().items()}
        position = dict(self._start) if self.trainer is None else position_of(self.trainer)
        return position | facts | {"contents": contents}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Makes the train loaders of this fit begin at that position; `setup` resets it.

        Raises:
            UserError: the classes have changed; or see `check_unchanged`.
        """
        if difference := different_class(state_dict.get("classes", self.spec.classes), self.spec.classes):
            raise UserError(f"the data has changed since the checkpoint: {difference}")
        images = len(self.dataset.split("train").rows)
        check_unchanged(state_dict, images, self.dataset.contents())
        self._start = {"epoch": state_dict["epoch"], "step": state_dict["step"]}
