"""How much memory requests may take, decoded and answered: what bytes can become, and one sum for all of them. Pure.

What is counted are marks (commas, brackets, quotes), by which a decoder cannot make more than so many values. The costs
are those of CPython's objects on 64 bits, measured (tests/appliance/test_budget.py compares them with the decoders).
Counting takes a hundredth of decoding, so that too much is refused before anything is made of it.

States of a claim: none -> held (`used` has it) -> given back. A claim waits for others' to be given back, so that many
large requests take turns; what was held before is given back first, so that two cannot wait for each other.
"""

import threading
from collections.abc import Callable

import numpy as np

from appliance.errors import Overloaded, TooLarge

MOST = 128 * 1024**2
"""Bytes of the default budget at most."""
SMALL = 64 * 1024
"""Bytes of a body, or of an answer, below which nothing is counted: all of them together take little."""
WAIT_SECONDS = 5.0
"""For which a large request waits for others to end."""

VALUE = 80
"""Bytes of one number: an object, its places in lists, and its copies on the way to an array."""
LIST = 96
OBJECT = 200
"""Bytes of a JSON object beside its keys."""
KEY = 72
TEXT = 56
"""Bytes of a text beside its characters."""
CELL = 160
"""Bytes of a CSV cell: a text, what it means, and their places."""
WORST = 200
"""Bytes that one byte of JSON becomes at most: `{},` counts as two values and an object, which may be made twice."""
CSV_WORST = 264
"""Bytes that one byte of CSV becomes at most: a line of one cell."""

_MANY_KEYS = 1000  # of one object: where they are put again and again into a larger table
_BLOCK = 256 * 1024
_FOUR_BYTES = 0xF0  # first byte of UTF-8's characters that make a text four bytes wide


def default_bytes(limit: int, processes: int = 1) -> int:
    """Return the budget of one process: its share of a quarter of the memory `limit`, at most MOST."""
    return max(1, min(MOST, limit // 4 // processes))


def json_cost(body: bytes) -> int:
    """Return the bytes that a JSON body takes at most, decoded and on its way to arrays, with the body itself."""
    commas, lists, objects, keys, quotes = _counts(body, b',[{:"')
    values = commas + lists + objects + 1
    texts = (quotes + 1) // 2
    boxes = lists * LIST + objects * OBJECT + keys * (KEY if keys < _MANY_KEYS * objects else 3 * KEY)
    if b"NaN" in body or b"Infinity" in body:  # no JSON: read by a decoder that makes everything twice
        boxes = 2 * boxes + len(body) * _width(body)
    cost = 2 * len(body) + values * VALUE + boxes + texts * TEXT
    if b"\\" in body:  # where escapes are, a text is put together apart
        cost += 2 * len(body)
    return cost + (len(body) * _width(body) if texts else 0)


def csv_cost(body: bytes) -> int:
    """Return the bytes that a CSV body takes at most, read and on its way to arrays, with the body itself."""
    commas, newlines, returns = _counts(body, b",\n\r")
    lines = newlines + returns + 1
    return len(body) * (2 + 2 * _width(body)) + (commas + lines) * CELL + lines * LIST


def texts_cost(size: int, texts: int) -> int:
    """Return the bytes that a binary tensor of so many texts in `size` bytes takes at most beside its body."""
    return 4 * size + texts * (TEXT + 4 * 8)


def numbers_cost(size: int, itemsize: int, width: int) -> int:
    """Return the bytes that a binary tensor of numbers takes at most beside its body.

    They have `itemsize` bytes each and become ones of `width` bytes.
    """
    return 2 * size if itemsize == width else size + size // itemsize * (2 * width + 2)


class Budget:
    """The bytes that all requests of a process may take together; safe in any thread."""

    def __init__(
        self, total: int, *, setting: str = "[http] max_decoded_bytes", idle: Callable[[], object] = lambda: None
    ) -> None:
        """`setting` is named where something is refused; `idle` is called when nothing large is held any more."""
        self.total = total
        self.used = 0
        self.outside: Callable[[], int] = lambda: 0
        """Bytes that belong to requests and answers but are held elsewhere: bodies that arrive, answers unsent."""
        self._setting = setting
        self._idle = idle
        self._freed = threading.Condition()

    def refuse(self, tried: str, amount: int, found: str) -> None:
        """Raise TooLarge when something can never have `amount` bytes; `found` says what takes them."""
        if amount > self.total:
            self._idle()  # what was refused is large itself, and freed soon
            found = f"{found} would take up to {amount} bytes of memory, {self.total} may be"
            raise TooLarge(tried, found, f"send fewer or shorter rows at once, or raise {self._setting}")

    def claim(self, tried: str, amount: int, found: str, *, wait: float = 0.0, instead_of: int = 0) -> None:
        """Hold `amount` bytes until release(), after waiting up to `wait` seconds for others to end.

        `instead_of` was held before and is given back whatever happens. Raises TooLarge for more than there ever are,
        Overloaded when others hold them.
        """
        with self._freed:
            self.used -= instead_of
            self._freed.notify_all()
            self.refuse(tried, amount, found)
            if not self._freed.wait_for(lambda: self._fits(amount), wait):
                held = f"other requests hold {self.used + self.outside()} of {self.total} bytes of memory"
                raise Overloaded(tried, held, f"try again in a second, or raise {self._setting}")
            self.used += amount

    def try_claim(self, amount: int) -> bool:
        """Hold `amount` bytes if they are there at once; return whether they are."""
        with self._freed:
            fits = amount <= self.total and self._fits(amount)
            if fits:
                self.used += amount
            return fits

    def release(self, amount: int) -> None:
        """Give back what was held."""
        with self._freed:
            self.used -= amount
            nothing_left = not self.used
            self._freed.notify_all()
        if nothing_left:
            self._idle()

    def _fits(self, amount: int) -> bool:
        """Return whether `amount` more bytes may be held; with the lock held."""
        return not self.used or self.used + self.outside() + amount <= self.total


def _counts(body: bytes, marks: bytes) -> list[int]:
    """Return how often each byte of `marks` stands in a body; other threads run meanwhile."""
    array = np.frombuffer(body, np.uint8)
    totals = [0] * len(marks)
    for start in range(0, len(array), _BLOCK):
        block = array[start : start + _BLOCK]
        for index, mark in enumerate(marks):
            totals[index] += int(np.count_nonzero(block == mark))
    return totals


def _width(body: bytes) -> int:
    """Return the bytes of a character of a text in the body at most: CPython's texts are 1, 2 or 4 bytes wide."""
    if body.isascii():
        # An escape is longer than what it stands for, but one can make a whole text wide.
        return (4 if b"\\ud" in body or b"\\uD" in body else 2) if b"\\u" in body else 1
    array = np.frombuffer(body, np.uint8)
    wide = any((array[start : start + _BLOCK] >= _FOUR_BYTES).any() for start in range(0, len(array), _BLOCK))
    return 4 if wide or b"\\u" in body else 2
