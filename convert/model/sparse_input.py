"""Knows which estimators the original asks with a sparse matrix, of those that answer otherwise to a dense one.

XGBoost takes an entry that is not stored as missing, QuantileTransformer leaves it 0, and IsolationForest sends every
missing value to the right. Whether a step gives a sparse matrix depends on its options and, in a ColumnTransformer, on
how much of the training rows was 0 (`sparse_threshold`). So the original is watched while it answers.
"""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import joblib
from scipy import sparse

from appliance.errors import ConversionRefused

_WATCHED = (
    ("xgboost.sklearn", "XGBModel", "predict", True),
    ("sklearn.preprocessing", "QuantileTransformer", "transform", True),
    ("sklearn.ensemble", "IsolationForest", "score_samples", False),
)
"""Classes, the method behind all answers, and whether a stored zero differs from one that is not stored."""
_DENSE = (
    "give it a dense matrix: ColumnTransformer(sparse_threshold=0), sparse_output=False, or a step that calls "
    "toarray(), and train it again"
)


@dataclass(slots=True)
class _Reached:
    """What kinds of matrices an estimator got so far."""

    model: Any  # kept, since Python reuses ids
    parts_zeros: bool
    as_sparse: bool = False
    as_dense: bool = False
    stored_zeros: bool = False

    def add(self, rows: Any) -> None:
        if not sparse.issparse(rows):
            self.as_dense = True
            return
        self.as_sparse = True
        self.stored_zeros |= self.parts_zeros and bool((rows.tocsr().data == 0).any())


class Watch:
    """Notes how estimators are asked. One thread at a time: while it is `on`, their classes are patched."""

    def __init__(self, estimators: Iterable[Any]) -> None:
        classes = tuple(kind for kind, _, _ in _watched_classes())
        self._needed = any(isinstance(estimator, classes) for estimator in estimators)
        self._found: dict[int, _Reached] = {}

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watch the estimators inside this context, where there are any to watch."""
        if not self._needed:
            yield
            return
        # With n_jobs an estimator may run in other processes, where it cannot be watched.
        with ExitStack() as stack, joblib.parallel_config(backend="sequential"):
            for kind, name, parts_zeros in _watched_classes():
                method = vars(kind)[name]
                setattr(kind, name, self._noting(method, parts_zeros))
                stack.callback(setattr, kind, name, method)
            yield

    def of(self, model: Any) -> _Reached | None:
        """Return how `model` was asked, or None where it was not."""
        return self._found.get(id(model))

    @property
    def parts_zeros(self) -> bool:
        """Whether an estimator got a sparse matrix and treats a stored zero in another way than an absent one."""
        return any(found.parts_zeros and found.as_sparse for found in self._found.values())

    def refusal(self) -> ConversionRefused | None:
        """Return why no graph can answer what was asked so far, or None."""
        return next((found for found in map(_refusal, self._found.values()) if found is not None), None)

    def _noting(self, method: Callable[..., Any], parts_zeros: bool) -> Callable[..., Any]:
        @functools.wraps(method)
        def noted(model: Any, X: Any, *arguments: Any, **named: Any) -> Any:  # noqa: N803 - may come by this name
            self._found.setdefault(id(model), _Reached(model, parts_zeros)).add(X)
            return method(model, X, *arguments, **named)

        return noted


_known: list[Watch] = []


@contextmanager
def known(watch: Watch) -> Iterator[None]:
    """Make the findings of `watch` available to `gets_sparse`."""
    _known.append(watch)
    try:
        yield
    finally:
        _known.pop()


def gets_sparse(model: Any) -> bool:
    """Return whether the original asks `model` with a sparse matrix: every 0 that reaches it is then not stored there.

    Raises ConversionRefused where some zeros are stored and that makes a difference: a tensor has none.
    """
    reached = _known[-1].of(model) if _known else None
    if reached is None:
        return False
    if refused := _refusal(reached):
        raise refused
    return reached.as_sparse


def _refusal(reached: _Reached) -> ConversionRefused | None:
    name = type(reached.model).__name__
    tried = f"convert {name} to ONNX"
    if reached.as_sparse and reached.as_dense:
        return ConversionRefused(tried, f"{name}: it is asked now with a sparse matrix, now with a dense one", _DENSE)
    if not reached.stored_zeros:
        return None
    found = (
        f"{name}: the sparse matrix that reaches it holds zeros (as an imputer's fill value or a spline's end give "
        "them), which are 0 to it, while zeros that are not stored are missing; a tensor cannot tell them apart"
    )
    return ConversionRefused(tried, found, _DENSE)


def _watched_classes() -> Iterator[tuple[type, str, bool]]:
    """Yield the classes whose modules are imported: a model cannot be of any other."""
    for module, name, method, parts_zeros in _WATCHED:
        if kind := getattr(sys.modules.get(module), name, None):
            yield kind, method, parts_zeros
