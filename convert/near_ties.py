"""Where a graph answers otherwise than the original, asks the original again one rounding of its inputs further.

An answer that the original itself does not keep over one rounding (ULP) of its inputs is no answer to hold a graph to:
that of a label at a decision boundary, or of a difference of two large numbers that leaves only their rounding errors.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from convert.rows import SEED
from convert.schema import Limits

REFUSED_TIE = "training rows with other values are as near as the last neighbour:"
"""What a graph says that refuses a row whose answer hangs on the order in which the original meets its neighbours."""
MOST_ROWS = 256
"""So many rows at once may be near-ties; where more are off, something else is wrong."""
_TURNS = 16

Values = NDArray[Any]


def moved(frame: pd.DataFrame, limits: Limits) -> list[pd.DataFrame]:
    """Return the rows over and over, each float moved to the float64 above or below: all up, all down, then mixed."""
    rng = np.random.default_rng(SEED)
    names = [name for name in frame if frame[name].dtype.kind == "f" and name not in limits.categories]
    turns = []
    for share in (1.0, 0.0, *[0.5] * (_TURNS - 2)):
        up = rng.random((len(names), len(frame))) < share
        ways = np.where(up, np.inf, -np.inf)
        columns = {
            name: pd.Series(np.nextafter(frame[name].to_numpy(), way.astype(frame[name].dtype)), index=frame.index)
            for name, way in zip(names, ways, strict=True)
        }
        turns.append(frame.assign(**columns))
    return turns


def nearest(found: Values, expected: Values, around: list[Values]) -> Values:
    """Return the numbers nearest to `found` in the range that the original's answers span: `expected`, and `around`."""
    answers = np.stack([expected, *around])
    return np.asarray(np.clip(found, answers.min(axis=0), answers.max(axis=0)))
