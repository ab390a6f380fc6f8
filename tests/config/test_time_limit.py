"""`trainer.max_time` accepts every form that Lightning accepts; everything else is refused in one line."""

from datetime import timedelta
from typing import Any

import pytest

from alexnet_lab.config.time_limit import max_seconds
from alexnet_lab.errors import UserError

DAY = 24 * 3600


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("00:12:00:00", 12 * 3600),
        ("02:01:02:03", 2 * DAY + 3723),
        ("100:00:00:01", 100 * DAY + 1),
        ({"hours": 1, "minutes": 30}, 5400),
        ({"weeks": 1, "milliseconds": 500}, 7 * DAY + 0.5),
        (timedelta(minutes=5), 300),
        (str(timedelta(days=3, hours=4)), 3 * DAY + 4 * 3600),
        (str(timedelta(seconds=5)), 5),
        ("PT1H30M", 5400),
    ],
)
def test_limit_in_seconds(value: Any, seconds: float | None) -> None:
    assert max_seconds(value) == seconds


@pytest.mark.parametrize(
    "value",
    ["soon", "12:00", "90", 90, 1.5, True, [1], {"hour": 1}, {"hours": "x"}, {"days": 1e30}, {"days": float("nan")}],
)
def test_wrong_form_is_refused_with_the_accepted_forms(value: Any) -> None:
    with pytest.raises(
        UserError, match=r"^trainer\.max_time=.*: expected DD:HH:MM:SS .*, \{hours: 1, minutes: 30\}, or a"
    ):
        max_seconds(value)


@pytest.mark.parametrize("value", ["00:00:00:00", {}, {"seconds": -1}, "-1:00:00"])
def test_limit_of_zero_or_less_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"^trainer\.max_time=.*: it must be above 0$"):
        max_seconds(value)
