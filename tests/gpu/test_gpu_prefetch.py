"""Batches that are prepared on a side stream arrive whole, also where the host is many steps ahead of the device."""

from collections.abc import Iterator
from typing import Any

NUMBER, BATCHES = 64, 60


def test_prefetched_batches_are_those_prepared_in_turn(device: str) -> None:
    import torch

    from alexnet_lab.data.pipeline import InputPipeline
    from alexnet_lab.data.prefetch import prefetched
    from alexnet_lab.data.spec import Batch, Draws

    on_gpu, place = device == "cuda", torch.device(device)
    pipeline = InputPipeline(96, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    generator = torch.Generator().manual_seed(0)
    stored = torch.randint(0, 256, (BATCHES, NUMBER, 128, 128, 3), generator=generator, dtype=torch.uint8)

    def on_host() -> Iterator[Batch]:
        for number, pixels in enumerate(stored):
            images = torch.empty_like(pixels, pin_memory=on_gpu).copy_(pixels).permute(0, 3, 1, 2)
            samples = torch.full((NUMBER,), number, pin_memory=on_gpu)
            box = torch.tensor([[number, 1, 60, 70]]).expand(NUMBER, 4).contiguous()
            yield Batch(images, samples, samples, NUMBER, Draws(box=box.pin_memory() if on_gpu else box))

    def prepare(batch: Batch) -> Batch:
        images, labels, box = (
            one.to(place, non_blocking=True) for one in (batch.images, batch.labels, batch.draws.box) if one is not None
        )
        return batch._replace(images=pipeline(images, Draws(box=box)), labels=labels, samples=labels)

    def consume(batches: Iterator[Batch], busy: int) -> Any:
        factor, found = torch.eye(4096 if on_gpu else 8, device=place), []
        for batch in batches:
            for _ in range(busy):  # the device reads the batch long after the host has released it
                factor = factor @ factor
            found.append(torch.stack([batch.images.double().sum() * factor[0, 0], batch.labels.double().sum()]))
        return torch.stack(found).cpu()

    expected = consume(map(prepare, on_host()), busy=0)
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    found = consume(prefetched(on_host(), prepare, place), busy=20)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1)
    if on_gpu:
        prepared, factors, workspace = NUMBER * 3 * 96 * 96 * 4, 2 * 4 * 4096**2, 2**26
        assert torch.cuda.max_memory_allocated() - before < BATCHES // 2 * prepared + factors + workspace
