"""The arrays that a data set is read into."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Samples = tuple[npt.NDArray[Any], Ints, npt.NDArray[Any], Ints, int]
"""Vectors and class numbers to train on, the same to test on, and how many classes there are; bytes are not yet divided
by 255."""
