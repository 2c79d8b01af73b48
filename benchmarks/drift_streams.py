"""Streams of readings that resemble the ones before them, with and without a daily cycle and a shift."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

ROWS = 3600
"""Of a window: one reading a second for an hour."""
DAY = 24 * ROWS


@dataclass(frozen=True)
class Stream:
    """Normal readings of deviation 1 whose correlation with the one before is `phi`, on a daily cycle of `cycle`."""

    phi: float
    cycle: float = 0.0

    @property
    def name(self) -> str:
        """What the tables say."""
        return f"phi {self.phi:g}" + (", daily cycle" if self.cycle else "")

    def rows(self, count: int, seed: int, shift: float = 0.0) -> NDArray[np.float32]:
        """Return `count` readings in one piece."""
        return np.concatenate(list(self.windows(-(-count // ROWS), seed, shift)))[:count]

    def windows(self, count: int, seed: int, shift: float = 0.0) -> Iterator[NDArray[np.float32]]:
        """Yield windows of ROWS readings, one after the other in time."""
        rng = np.random.default_rng(seed)
        state = np.array([self.phi * rng.normal()])
        scale = np.sqrt(1 - self.phi**2)
        for window in range(count):
            noise, state = lfilter([1], [1, -self.phi], rng.normal(size=ROWS) * scale, zi=state)
            turn = 2 * np.pi * (window * ROWS + np.arange(ROWS)) / DAY
            yield (noise + self.cycle * np.sin(turn) + shift).astype(np.float32)


STREAMS = (Stream(0), Stream(0.9), Stream(0.99), Stream(0.998), Stream(0.9, 1.0), Stream(0.998, 1.0))
