"""The type of the arrays that pass between the parts."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
"""An array of any dtype and shape: a model's input, an output, one column."""
