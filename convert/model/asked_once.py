"""Lets a forest compute the probabilities of the same rows once, though both of its answers are asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from convert.model.arrays import Array

_FORESTS = (RandomForestClassifier, ExtraTreesClassifier)
_METHOD = "predict_proba"


@contextmanager
def probabilities(estimator: Any) -> Iterator[None]:
    """Inside this context, keep what a forest's `predict_proba` returned last, and return it for the same rows again.

    The labels of scikit-learn's forests are those of the largest probabilities, which `predict` asks of this method. A
    forest of some other class may have its own way, and is left alone. For one thread.
    """
    if type(estimator) not in _FORESTS or _METHOD in vars(estimator):
        yield
        return
    own = getattr(estimator, _METHOD)
    rows: Any = None
    answer: Any = None

    def once(X: Any) -> Any:  # noqa: N803 - scikit-learn's name, by which it may be given
        nonlocal rows, answer
        if rows is None or not _is_same(rows, X):
            rows, answer = X, own(X)
        return answer.copy() if isinstance(answer, np.ndarray) else [part.copy() for part in answer]

    setattr(estimator, _METHOD, once)
    try:
        yield
    finally:
        delattr(estimator, _METHOD)


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two tables are the same object, or arrays of the same bits."""
    if one is other:
        return True
    arrays: tuple[Array, Array] = (one, other)
    if not all(isinstance(array, np.ndarray) for array in arrays):
        return False
    same = one.dtype == other.dtype and one.shape == other.shape and one.dtype.kind in "fiub"
    return bool(same and one.tobytes() == other.tobytes())
