"""Writes sparse matrices out as plain arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def dense(points: Any) -> NDArray[np.float64]:
    """Return points as a float64 array, sparse ones written out."""
    return np.asarray(points.toarray() if hasattr(points, "toarray") else points, dtype=np.float64)
