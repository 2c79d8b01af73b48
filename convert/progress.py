"""What a person sees of a conversion under way: its steps on a terminal, and a line every half minute in a pipe."""

import time
from collections.abc import Callable

from appliance.plain_text import plain

PAUSE = 30.0
"""Seconds between two lines in a pipe, so that a log shows that the command is alive."""
_FEW = 0.02  # of the rows; fewer show no pace


class Shown:
    """Shows steps and rows by `write`, which gets text with its line ends. For one thread.

    On a terminal each step is a line, and the rows proved are one more that is written over. In a pipe there is nothing
    until PAUSE seconds have passed, and then a line each time that they have.
    """

    def __init__(
        self, write: Callable[[str], None], is_terminal: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._is_terminal, self._clock = write, is_terminal, clock
        self._step, self._rows = "", (0, 0)
        self._began = self._told = clock()
        self._is_open = False  # a line that is not ended yet

    def step(self, message: str) -> None:
        """Show that the next step began."""
        self.end()
        self._step, self._rows, self._began = plain(message), (0, 0), self._clock()
        if self._is_terminal:
            self._write(f"{self._step} ...\n")
        self.tick()

    def proved(self, done: int, total: int) -> None:
        """Show that so many rows of so many have been proved in this step."""
        self._rows = (done, total)
        if self._is_terminal:
            self._write(f"\r  {self._told_of_rows():<70}")
            self._is_open = True
        self.tick()

    def tick(self) -> None:
        """Write a line in a pipe where it is time for one; to be called about once a second."""
        now = self._clock()
        if self._is_terminal or now - self._told < PAUSE:
            return
        self._told = now
        told = self._told_of_rows() if self._rows[1] else f"{now - self._began:.0f} s so far"
        self._write(f"{self._step}: {told}\n")

    def end(self) -> None:
        """End the line of rows, if there is one."""
        if self._is_open:
            self._write("\n")
        self._is_open = False

    def _told_of_rows(self) -> str:
        done, total = self._rows
        told = f"{done:,} of {total:,} rows proved"
        if total * _FEW < done < total:
            seconds = (self._clock() - self._began) * (total - done) / done
            told += f", about {seconds:.0f} s left"
        return told
