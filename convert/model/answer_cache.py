"""Keeps a model's answers, so that the same rows are asked once, however many parts of a proof need them."""

import hashlib
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from convert.model.arrays import Answers

MOST_BYTES = 64 * 2**20
"""The limit for all answers that are kept; the least recently used are dropped first."""


class AnswerCache:
    """Answers by the rows' content. For one thread; callers must not change the arrays that they get."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._kept: OrderedDict[tuple[Any, ...], tuple[Any, Answers]] = OrderedDict()
        self._bytes = 0

    def of(self, frame: pd.DataFrame, ask: Callable[[], Answers], under: Any = None) -> Answers:
        """Return `ask()`, or what it returned before for the same rows and the same object `under`.

        Nothing is kept where it raises."""
        key = (id(under), _digest(frame))
        if key in self._kept:
            self._kept.move_to_end(key)
            return dict(self._kept[key][1])
        answers = ask()
        self._kept[key] = (under, answers)  # the object is kept, since Python reuses ids
        self._bytes += _size(answers)
        while self._bytes > self.most_bytes:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._bytes -= _size(dropped)
        return dict(answers)


def _size(answers: Answers) -> int:
    """Return about how many bytes answers take; for texts, the size of their pointers."""
    return sum(array.nbytes for array in answers.values())


def _digest(frame: pd.DataFrame) -> bytes:
    """Return a digest of a table's names, dtypes and values; tables of one digest hold the same bits."""
    digest = hashlib.blake2b(digest_size=16)
    for name, values in frame.items():
        digest.update(repr((name, str(values.dtype), len(values))).encode())
        array = values.to_numpy()
        plain = array.dtype.kind in "fiub" and values.dtype == array.dtype
        digest.update(np.ascontiguousarray(array).tobytes() if plain else pickle.dumps(values.tolist(), protocol=5))
    return digest.digest()
