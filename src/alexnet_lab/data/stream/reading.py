"""A stream as a source of images, read in chunks through LitData's `StreamingDataset`.

Only its access by index is used. Its own iteration gives each rank separate chunks and drops samples that cannot be
divided evenly. Our order (see `EpochOrder`) yields every sample exactly once for any number of ranks, and a run can be
continued at any step.
"""

from collections import OrderedDict
from concurrent.futures import Future
from threading import Lock
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from alexnet_lab.command_line import command, override
from alexnet_lab.data.dataset import Split
from alexnet_lab.data.encoded import decode_square
from alexnet_lab.data.store.format import IMAGE_SHAPE, VERSION, StoreMeta
from alexnet_lab.data.store.images import SIZE
from alexnet_lab.data.store.modes import Unreadable
from alexnet_lab.data.stream.layout import ABOUT, About, inside, open_stream, stored_order
from alexnet_lab.errors import UserError

CHUNKS_HELD = 3
"""Chunks in memory: prefetching threads work at the end of one chunk and at the start of the next."""


def read_about(place: str, name: str | None) -> tuple[StoreMeta, About]:
    """The metadata of the stream at `place`; `name` is the expected dataset, None for any.

    Raises:
        UserError: LitData is not installed, there is no complete stream, or its dataset or version differs.
    """
    source = override("data", name or "NAME")
    try:
        about = cast(About, open_stream(inside(place, ABOUT))[0])
        meta = StoreMeta.model_validate_json(about["meta"])
    except UserError:
        raise
    except (KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{place} (data.dir) is not an AlexNet Lab stream: {error}") from error
    except Exception as error:  # botocore's, obstore's, LitData's own
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"no stream in {place} (data.dir), or it cannot be reached: {reason}\n"
            f"to make it from a store: {command('prepare', source, override('stream', place))}"
        ) from error
    if meta.version != VERSION:
        raise UserError(f"{place} is a stream of version {meta.version}, this program reads {VERSION}; make it again")
    if name not in (None, meta.name):
        raise UserError(f"{place} (data.dir) contains a stream of {meta.name}, not of {name}")
    return meta, about


class StreamSource:
    """The counterpart of `StoreSource` for a stream. Samples keep their numbers in the store."""

    def __init__(self, place: str, name: str | None) -> None:
        self._place = place
        self.meta, self._about = read_about(place, name)
        self.classes = tuple(known.name for known in self.meta.classes)
        self.counts = self.meta.counts
        self.transparency = self.meta.transparency

    def images(self, split: str) -> "StreamedImages":
        return StreamedImages(inside(self._place, split), split, self.counts[split], self._about["chunk_images"])

    def labels(self, split: str) -> NDArray[np.int64]:
        labels = np.frombuffer(self._about["labels"], "<i8").astype(np.int64)
        ends = np.cumsum(list(self.counts.values()))
        return np.split(labels, ends[:-1])[list(self.counts).index(split)]

    def identity(self, split: str) -> str:
        return self.meta.identity()

    def mean_image(self) -> NDArray[np.float32]:
        """[256, 256, 3], grey levels 0 to 255."""
        return np.frombuffer(self._about["mean_image"], "<f4").reshape(IMAGE_SHAPE)


class StreamedImages:
    """The images of a split, `WindowedImages` for several threads.

    Fast if accessed chunk by chunk. The first rank on a machine that needs a chunk downloads it into LitData's folder,
    where all ranks read it. All ranks read all chunks, because each global batch is divided among all ranks.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, place: str, split: str, count: int, chunk_images: int) -> None:
        self._place = place
        self._chunk_images = chunk_images
        self._samples = stored_order(split, count)
        self._places = np.argsort(self._samples)
        self.chunks: NDArray[np.int64] = self._places // chunk_images
        """[M], the chunk of each image."""
        self._dataset: Any = None
        self._reading = Lock()
        self._held: OrderedDict[int, Future[list[bytes]]] = OrderedDict()
        self._holding = Lock()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._samples), 3, SIZE, SIZE

    def window(self, row: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        chunk, within = divmod(int(self._places[row]), self._chunk_images)
        jpeg = self._chunk(chunk)[within]
        try:
            image = decode_square(jpeg)
        except Unreadable as error:
            raise UserError(f"image {row} in chunk {chunk} of {self._place} is damaged ({error})") from error
        return image[top : top + height, left : left + width]

    def _chunk(self, chunk: int) -> list[bytes]:
        """The JPEGs of a chunk; if another thread is reading it, wait for that thread."""
        with self._holding:
            known = self._held.get(chunk)
            future = known or Future()
            self._held[chunk] = future
            self._held.move_to_end(chunk)
            while len(self._held) > CHUNKS_HELD:
                self._held.popitem(last=False)
        if known is None:
            try:
                with self._reading:
                    future.set_result(self._read(chunk))
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def _read(self, chunk: int) -> list[bytes]:
        if self._dataset is None:
            self._dataset = open_stream(self._place)
            # An empty slice makes LitData download whole chunks instead of single records.
            self._dataset[0:0]
        first = chunk * self._chunk_images
        samples = self._samples[first : first + self._chunk_images]
        try:
            records = [self._dataset[place] for place in range(first, first + len(samples))]
        except Exception as error:  # botocore's, obstore's, LitData's own
            raise UserError(f"chunk {chunk} of {self._place} cannot be read: {error}") from error
        if [record["sample"] for record in records] != samples.tolist():
            raise UserError(f"chunk {chunk} of {self._place} contains other images than were written; make it again")
        return [record["image"] for record in records]


def chunks_of(split: Split) -> NDArray[np.int64] | None:
    """[n], the chunk of each sample of a streamed split; None for splits that are not streamed."""
    return split.images.chunks[split.rows] if isinstance(split.images, StreamedImages) else None
