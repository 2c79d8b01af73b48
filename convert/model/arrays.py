"""Names the arrays that conversion passes around, and turns sparse matrices into plain arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""An array of any dtype: a column, an answer, the rows of a table."""
Mask = NDArray[np.bool_]
"""A flag for each row."""
Answers = dict[str, Array]
"""{output name: its answers, an array [rows, ...]}."""


def dense(points: Any) -> NDArray[np.float64]:
    """Return points, sparse or not, as a plain float64 array."""
    return np.asarray(points.toarray() if hasattr(points, "toarray") else points, dtype=np.float64)
