"""Local response normalisation in PyTorch's operations, in chunks that go through all of them while in the cache.

Saves only the input for the backward pass, which the preceding ReLU has saved anyway; PyTorch's own version reads and
writes whole maps, and saves several. Window sums are sums of shifted views.

Shapes: N images, C channels, H W height and width. A row contains the c = C / groups channels of a group: [R, c, I],
with I = H * W adjacent positions in contiguous maps and I = 1 in channels_last maps.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

PIECE = {"cpu": 1 << 19}
"""Numbers processed at a time, by device type: 2 MiB for each of five buffers."""
LARGE_PIECE = 1 << 26
"""For other devices without a kernel, and for float64: it only limits the memory."""


class Constants(NamedTuple):
    size: int
    alpha: float
    beta: float
    k: float
    groups: int


def normalised(x: Tensor, constants: Constants) -> Tensor:
    """Normalises a dense float map [N, C, H, W]; the result has its dtype and format."""
    y = torch.empty_like(x)
    work = _Workspace(x, constants)
    for xs, ys in work.pieces(x, y):
        rows = xs.to(work.dtype)
        power = work.sums_of_squares(rows).mul_(work.weight).add_(constants.k).pow_(constants.beta)
        torch.div(rows, work.channels_of(power, xs), out=ys)
    return y


def gradient(x: Tensor, grad: Tensor, constants: Constants) -> Tensor:
    """g s^-beta - 2 alpha beta / size x (sum of g x s^(-beta - 1)), with s = k + alpha / size (sum of x^2).

    The second sum is over the channels whose windows contain this one. `x` and `grad` are dense, of the same format.
    """
    dx = torch.empty_like(x)
    work = _Workspace(x, constants)
    for xs, gs, ds in work.pieces(x, grad, dx):
        rows = xs.to(work.dtype)
        scale, power = work.scale_and_power(rows)
        direct = torch.div(gs, work.channels_of(power, xs), out=work.direct[: len(xs)])
        shared = work.mirrored_window_sum(direct, rows, scale)
        torch.addcmul(direct, rows, shared, value=-2 * constants.beta * work.weight, out=ds)
    return dx


class _Workspace:
    """Buffers for a chunk of r rows, reused for every chunk, so that they stay in the cache.

    In `terms`, the channels of each row are preceded by zeros, as many as a window reaches back. The sum over a window
    is then a sum of shifted views of the flat buffer: a window that leaves its row reads zeros.
    """

    def __init__(self, x: Tensor, constants: Constants) -> None:
        self.constants = constants
        self.weight = constants.alpha / constants.size
        self.dtype = wide(x)
        rows, self.channels, self.inner = _rows(x, constants.groups).shape
        self.before, self.after = constants.size // 2, (constants.size - 1) // 2
        self.pitch = self.before + self.channels  # channels from row to row
        piece = PIECE.get(x.device.type, LARGE_PIECE)
        self.most = max(1, min(rows, piece // max(1, self.pitch * self.inner)))
        self.terms = x.new_zeros((self.most * self.pitch + constants.size) * self.inner, dtype=self.dtype)
        self.sums = x.new_empty(self.most * self.pitch * self.inner, dtype=self.dtype)
        self.scales = torch.empty_like(self.sums)
        self.powers = x.new_empty(len(self.terms), dtype=self.dtype)
        self.pairs = self.powers  # neither is needed while the other is
        self.direct = x.new_empty((self.most, self.channels, self.inner), dtype=self.dtype)

    def pieces(self, *maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The rows [r, c, I] of maps [N, C, H, W], in chunks."""
        return zip(*(_rows(tensor, self.constants.groups).split(self.most) for tensor in maps), strict=True)

    def channels_of(self, buffer: Tensor, rows: Tensor) -> Tensor:
        """The channels of the rows in a flat buffer, as a view [r, c, I]."""
        held = buffer[: len(rows) * self.pitch * self.inner]
        return held.view(len(rows), self.pitch, self.inner)[:, : self.channels]

    def sums_of_squares(self, rows: Tensor) -> Tensor:
        """Sum of x^2 over the window, flat."""
        torch.mul(rows, rows, out=self._terms_of(rows))
        return self._window_sums(rows, first=0)

    def scale_and_power(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """s = k + alpha / size * (sum of x^2 over the window), and s^beta, both flat."""
        _, _, beta, k, _ = self.constants
        sums = self.sums_of_squares(rows).mul_(self.weight)
        scale = torch.add(sums, k, out=self.scales[: len(sums)])
        power = self.powers[: len(sums)]
        if beta != 0.75:
            return scale, torch.pow(scale, beta, out=power)
        # A third of the time of pow: sqrt(s sqrt(s)), with the outer s taken in its two parts, before it was rounded.
        torch.sqrt(scale, out=power)
        return scale, sums.mul_(power).add_(power, alpha=k).sqrt_()

    def mirrored_window_sum(self, direct: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
        """Sum of g x s^(-beta - 1), with direct = g s^-beta, over the channels that reach this one, [r, c, I]."""
        torch.mul(direct, rows, out=self._terms_of(rows)).div_(self.channels_of(scale, rows))
        return self.channels_of(self._window_sums(rows, first=self.before - self.after), rows)

    def _terms_of(self, rows: Tensor) -> Tensor:
        return self.channels_of(self.terms[self.before * self.inner :], rows)

    def _window_sums(self, rows: Tensor, first: int) -> Tensor:
        """Flat; the window of a row's first channel begins `first` channels after the row's leading zeros do."""
        size, sums = self.constants.size, self.sums[: len(rows) * self.pitch * self.inner]
        terms = self.terms[first * self.inner :][: len(sums) + (size - 1) * self.inner]
        # Sums of two neighbours serve the windows of both: fewer passes, and fewer roundings in a row.
        earlier, later = terms[: -self.inner], terms[self.inner :]
        pairs = torch.add(earlier, later, out=self.pairs[: len(later)])
        parts = [pairs[i * self.inner :][: len(sums)] for i in range(0, size - 1, 2)]
        if size % 2:
            parts.append(terms[(size - 1) * self.inner :])
        if len(parts) == 1:
            return sums.copy_(parts[0])
        torch.add(parts[0], parts[1], out=sums)
        for part in parts[2:]:
            sums += part
        return sums


def _rows(x: Tensor, groups: int) -> Tensor:
    """A dense [N, C, H, W] as rows [R, c, I], a view."""
    if x.is_contiguous():
        return x.unflatten(1, (groups, -1)).flatten(0, 1).flatten(2)
    return x.permute(0, 2, 3, 1).unflatten(3, (groups, -1)).flatten(0, 3).unsqueeze(2)


def memory_format(x: Tensor) -> torch.memory_format:
    """channels_last if x is that alone."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def dense(x: Tensor) -> Tensor:
    """x, copied if its numbers are not adjacent in memory."""
    return x.contiguous(memory_format=memory_format(x))


def wide(x: Tensor) -> torch.dtype:
    """The dtype that x is computed in: float32 or float64."""
    return torch.promote_types(x.dtype, torch.float32)
