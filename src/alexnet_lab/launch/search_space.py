"""What a search varies: from the command line's `choice()`, `range()` and `interval()` to Optuna's distributions.

Optuna is an extra, so it is imported only where a search needs it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Sweep, Transformer

from alexnet_lab.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MOST_VALUES = 1_000_000


@dataclass(frozen=True)
class Space:
    """The search space: a distribution per key that is varied, and the overrides that all trials share."""

    distributions: Mapping[str, "BaseDistribution"]
    fixed: Sequence[str]

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """A trial's overrides, as Hydra parses them; a float is written with all its digits."""
        return [*self.fixed, *(f"{key}={_text(params[key])}" for key in self.distributions)]

    def examples(self, is_group: Callable[[str], bool]) -> list[list[str]]:
        """The overrides of a few trials that use each choice of a configuration group, as `model=choice(a,b)`, once."""
        choices = {key: getattr(one, "choices", None) or [one.low] for key, one in self.distributions.items()}  # type: ignore[attr-defined]
        first = {key: values[0] for key, values in choices.items()}
        groups = [key for key in choices if is_group(key.lstrip("+").partition("@")[0])]
        return [
            self.overrides({**first, **one}) for one in [{}, *({key: v} for key in groups for v in choices[key][1:])]
        ]

    def grid(self) -> dict[str, list[Any]] | None:
        """All values of each key; None where a key takes any number in an interval, or more than `MOST_VALUES`."""
        values = {key: _values(one) for key, one in self.distributions.items()}
        return None if None in values.values() else values  # type: ignore[return-value]


def space_of(overrides: Sequence[str], config_loader: Any) -> Space:
    """The space that `overrides` describe; of a key that is given twice, the last one counts.

    Raises:
        UserError: an interval or a range that is empty or cannot be searched, or nothing to vary.
    """
    parsed = OverridesParser.create(config_loader=config_loader).parse_overrides(list(overrides))
    last = {one.get_key_element(): one for one in parsed}
    distributions = {key: _distribution(one) for key, one in last.items() if one.is_sweep_override()}
    if not distributions:
        raise UserError("a search needs something to vary, as in 'optimizer.lr=tag(log,interval(0.001,0.1))'")
    return Space(distributions, [str(one.input_line) for one in last.values() if not one.is_sweep_override()])


def _distribution(override: Override) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution

    value = override.value()
    tags = value.tags if isinstance(value, Sweep) else set()
    if tags - {"log"}:
        raise _wrong(override, f"tag {', '.join(sorted(tags - {'log'}))} has no meaning in a search; log has")
    if isinstance(value, IntervalSweep):
        return _interval(override, value, "log" in tags)
    if isinstance(value, RangeSweep) and not value.shuffle:
        return _range(override, value, "log" in tags)
    if isinstance(value, RangeSweep | ChoiceSweep):
        value.shuffle = False  # the order must be the same when the search is started again
    if tags:
        raise _wrong(override, "tag(log, ...) takes an interval() or a range() of integers")
    choices: list[Any] = list(dict.fromkeys(override.sweep_iterator(transformer=_choice)))
    if not choices:
        raise _wrong(override, "nothing to choose from")
    return CategoricalDistribution(choices)


def _interval(override: Override, value: IntervalSweep, log: bool) -> "BaseDistribution":
    from optuna.distributions import FloatDistribution, IntDistribution

    assert value.start is not None
    assert value.end is not None
    if not (math.isfinite(value.start) and math.isfinite(value.end) and value.start < value.end):
        raise _wrong(override, "the interval is empty; interval(LOW, HIGH) takes two finite numbers, LOW below HIGH")
    if log and value.start <= 0:
        raise _wrong(override, "a logarithmic interval must begin above 0")
    kind = IntDistribution if isinstance(value.start, int) else FloatDistribution
    return kind(value.start, value.end, log=log)  # type: ignore[arg-type]


def _range(override: Override, value: RangeSweep, log: bool) -> "BaseDistribution":
    from optuna.distributions import FloatDistribution, IntDistribution

    start, stop, step = value.start, value.stop, value.step
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in (start, stop, step)) or step == 0:
        raise _wrong(override, "range(START, STOP, STEP) takes finite numbers, and a STEP other than 0")
    assert start is not None
    count = sum(1 for _ in islice(value.range(), MOST_VALUES + 1))
    if not 0 < count <= MOST_VALUES:
        problem = "the range is empty" if not count else f"the range has more than {MOST_VALUES:,} values"
        raise _wrong(override, f"{problem}; range(START, STOP, STEP) includes START and ends before STOP")
    whole = all(isinstance(one, int) for one in (start, stop, step))
    if log and (not whole or abs(step) != 1 or min(start, start + (count - 1) * step) <= 0):
        raise _wrong(override, "a logarithmic range takes integers above 0 and the step 1; or use interval()")
    # In decimals, as the values of Hydra's own range: 0.1 + 0.2 is 0.3.
    ends = sorted([Decimal(str(start)), Decimal(str(start)) + (count - 1) * Decimal(str(step))])
    if whole:
        return IntDistribution(int(ends[0]), int(ends[1]), step=abs(int(step)), log=log)
    return FloatDistribution(float(ends[0]), float(ends[1]), step=abs(step))


def _choice(value: Any) -> Any:
    """One of several values: a number or a truth value as it is, anything else as Hydra writes it."""
    return value if isinstance(value, bool | int | float) else Transformer.str(value)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else repr(value)


def _values(distribution: Any) -> list[Any] | None:
    if hasattr(distribution, "choices"):
        return list(distribution.choices)
    if distribution.single():
        return [distribution.low]
    if distribution.step is None:
        return None
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    if count > MOST_VALUES:
        return None
    step, low = Decimal(str(distribution.step)), Decimal(str(distribution.low))
    return [type(distribution.low)(low + number * step) for number in range(count)]


def _wrong(override: Override, reason: str) -> UserError:
    return UserError(f"{override.input_line}: {reason}")
