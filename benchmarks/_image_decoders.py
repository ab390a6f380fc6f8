"""The part of `image_feed.py` that compares decoders of JPEG files: ours, and others that are installed.

Each decodes the same files to the same RGB pixels, which is checked: photographs as they are; these at 256x256, as in a
JPEG store; and photographs that are then scaled to 256x256, as from a folder of images. One thread shows the speed of a
core, two show whether the decoder releases the GIL.

torchvision deprecates its decoder since 0.29. Its successor is in TorchCodec, whose wheel must fit the build of torch:
the one on PyPI for Linux needs a torch with CUDA.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from _report import median_ratio, report
from numpy.typing import NDArray
from torch import Tensor

from alexnet_lab.data import encoded
from alexnet_lab.data.store.images import decode_by_pillow, decode_jpeg, to_jpeg, to_square

Decode = Callable[[bytes], NDArray[np.uint8]]
THREADS = (1, 2)
PEER = "torchvision"


def compare_decoders(photographs: list[bytes], rounds: int) -> None:
    """Measures and reports; each round has all decoders in turn."""
    torch.set_num_threads(1)
    stored = [to_jpeg(to_square(data)) for data in photographs]
    decoders = available()
    check(decoders, [*photographs, *stored])
    tasks = {"photograph": (photographs, False), "256x256": (stored, False), "photograph, scaled": (photographs, True)}
    keys = [(task, name, threads) for task in tasks for name in decoders for threads in THREADS]
    rates: dict[tuple[str, str, int], list[float]] = {key: [] for key in keys}
    seconds: dict[tuple[str, str, int], list[float]] = {key: [] for key in keys}
    for _ in range(rounds):
        for task, name, threads in keys:
            files, scaled = tasks[task]
            setattr(encoded, "decode_jpeg", decoders[name])  # noqa: B010
            rate, cpu = measure(encoded.fast_square if scaled else decoders[name], files, threads)
            rates[task, name, threads].append(rate)
            seconds[task, name, threads].append(cpu)
    medians = {key: statistics.median(found) for key, found in rates.items()}
    milliseconds = {key: 1e3 * statistics.median(found) for key, found in seconds.items()}
    rows = [
        (task, name, *(f"{medians[task, name, n]:,.0f}" for n in THREADS), f"{milliseconds[task, name, 1]:.3f}")
        for task in tasks
        for name in decoders
    ]
    ratios = {
        f"{task}, {name} vs {PEER}, {threads} threads": median_ratio(
            rates[task, name, threads], rates[task, PEER, threads]
        )
        for task, name, threads in keys
        if PEER in decoders and name != PEER
    }
    figures = {
        f"{task}, {name}, {threads} threads, images/s": medians[task, name, threads] for task, name, threads in keys
    }
    figures |= {f"{task}, {name}, CPU ms": milliseconds[task, name, 1] for task, name, _ in keys}
    figures |= {"photographs": len(photographs), "rounds": rounds}
    header = ("files", "decoder", "images/s, 1 thread", "2 threads", "CPU ms")
    report("image_feed", header, rows, ratios, figures)


def available() -> dict[str, Decode]:
    """The installed decoders: bytes of a file -> [H, W, 3]."""
    found: dict[str, Decode] = {"ours": decode_jpeg, "pillow": decode_by_pillow}
    try:
        from torchvision.io import decode_jpeg as by_torchvision

        warnings.filterwarnings("ignore", "The image decoding .* of TorchVision", DeprecationWarning)
        found["torchvision"] = lambda data: pixels(by_torchvision(encoded_bytes(data)))
    except ImportError as error:
        print(f"skipped: torchvision has no decoder ({error})")
    try:
        from torchcodec.decoders import decode_jpeg as by_torchcodec

        found["torchcodec"] = lambda data: pixels(by_torchcodec(encoded_bytes(data), mode="UNCHANGED"))
    except (ImportError, OSError) as error:
        print(f"skipped: torchcodec is not installed, or not for this torch ({str(error).splitlines()[0]})")
    return found


def encoded_bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)  # torch requires writeable memory


def pixels(image: Tensor) -> NDArray[np.uint8]:
    rgb: NDArray[np.uint8] = image.expand(3, -1, -1).permute(1, 2, 0).numpy()
    return rgb


def check(decoders: dict[str, Decode], files: list[bytes]) -> None:
    """Assert that all decoders give the same pixels."""
    for data in files:
        expected = decode_by_pillow(data)
        for name, decode in decoders.items():
            assert np.array_equal(decode(data), expected), f"the pixels of {name} differ"


def measure(decode: Callable[[bytes], object], files: list[bytes], threads: int) -> tuple[float, float]:
    """Images per second, and seconds of CPU time per image."""
    with ThreadPoolExecutor(threads) as pool:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in pool.map(decode, files):
            pass
        return len(files) / (time.perf_counter() - wall), (time.process_time() - cpu) / len(files)
