"""The ranges of the networks' parameters. A value outside of its range is reported as a `UserError`."""

from collections.abc import Collection

from alexnet_lab.errors import UserError


def check_common(in_channels: int, num_classes: int, image_size: int, smallest: int, dropout: float) -> None:
    """Check the common parameters; `smallest`: the smallest side whose last pool has an output. Raises UserError."""
    _check_at_least("in_channels", in_channels, 1)
    _check_at_least("num_classes", num_classes, 1)
    _check_at_least("image_size", image_size, smallest)
    if not 0 <= dropout < 1:
        raise UserError(f"model.dropout must be in [0, 1), got {dropout}")


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raises UserError if `value` is not one of the choices."""
    if value not in choices:
        raise UserError(f"model.{name} must be one of {', '.join(map(str, choices))}, got {value}")


def check_lrn(size: int, alpha: float, beta: float, k: float) -> None:
    """The constants of local response normalisation, for which k + alpha * x^2 is positive. Raises UserError."""
    _check_at_least("lrn_size", size, 1)
    _check_at_least("lrn_alpha", alpha, 0)
    _check_at_least("lrn_beta", beta, 0)
    if not k > 0:
        raise UserError(f"model.lrn_k must be greater than 0, got {k}")


def _check_at_least(name: str, value: float, minimum: int) -> None:
    if not value >= minimum:
        raise UserError(f"model.{name} must be at least {minimum}, got {value}")
