"""The latest values of one feed, and statistics of them: last, mean, min, max, std, count, slope. Pure."""

import math
from collections import deque
from collections.abc import Callable
from typing import Any

Value = float | str | bool


class Window:
    """Values with their times (seconds of the Clock), bounded by number and age."""

    def __init__(self, *, values: int, seconds: float) -> None:
        """Keep the last `values` of the last `seconds` (0: of any age)."""
        self._kept: deque[tuple[float, Value]] = deque(maxlen=values)
        self._seconds = seconds

    def add(self, at: float, value: Value) -> None:
        """Take a value."""
        self._kept.append((at, value))
        self.age(at)

    def age(self, now: float) -> None:
        """Drop values that are older than the window."""
        while self._seconds and self._kept and self._kept[0][0] < now - self._seconds:
            self._kept.popleft()

    @property
    def latest(self) -> tuple[float, Value] | None:
        """The last value and its time."""
        return self._kept[-1] if self._kept else None

    @property
    def first(self) -> float | None:
        """The time of the oldest value that is kept."""
        return self._kept[0][0] if self._kept else None

    def tell(self, statistic: str) -> Value:
        """Return a statistic of the values, of which there is at least one."""
        if statistic == "last":
            return self._kept[-1][1]
        if statistic == "count":
            return float(len(self._kept))
        numbers = [float(value) for _, value in self._kept]
        try:
            return _slope([at for at, _ in self._kept], numbers) if statistic == "slope" else _OF[statistic](numbers)
        except OverflowError:  # an intermediate result is beyond any float
            return math.inf


def is_number(value: Any) -> bool:
    """Return whether statistics can be computed of a value."""
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def _mean(numbers: list[float]) -> float:
    """Return the mean."""
    return math.fsum(numbers) / len(numbers)


def _std(numbers: list[float]) -> float:
    """Return the standard deviation of the values themselves (divided by their number, as numpy's default)."""
    mean = _mean(numbers)
    return math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers))


def _slope(times: list[float], numbers: list[float]) -> float:
    """Return the least-squares slope per second, 0 where all times are one."""
    middle, mean = _mean(times), _mean(numbers)
    spread = math.fsum((at - middle) ** 2 for at in times)
    if spread == 0:
        return 0.0
    return math.fsum((at - middle) * (number - mean) for at, number in zip(times, numbers, strict=True)) / spread


_OF: dict[str, Callable[[list[float]], float]] = {"mean": _mean, "min": min, "max": max, "std": _std}
