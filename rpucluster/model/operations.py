"""Digital operations that one element takes: our count of what the digital units do besides matrix products.

A function that the units evaluate in one go (exponential, tanh, sigmoid, GELU, a reciprocal root) counts as one, as
every addition, multiplication and comparison does.
"""

from typing import Final

SOFTMAX: Final = 4
"""Difference to the largest, exponential, sum, division."""
SOFTMAX_BACK: Final = 4
"""Product with the error, sum, difference, product."""
NORM: Final = 7
"""Sum, difference, square, sum, scale, gain, shift."""
NORM_BACK: Final = 11
"""Gain gradient 2, shift gradient 1, error times gain 1, two sums 3, what they take from the error 4."""
LOCAL_RESPONSE: Final = 8
"""Square, five sums, power, product: the normalisation over neighbouring channels of AlexNet; as many back."""
LSTM: Final = 9
"""Of a unit and step: three sigmoids, two hyperbolic tangents, three products, a sum."""
LSTM_BACK: Final = 17
"""Four derivatives of gates 8, the cell's error 4, errors of gates, cell and output 5."""
GRU: Final = 8
"""Of a unit and step: two sigmoids, a hyperbolic tangent, three products, a difference, a sum."""
GRU_BACK: Final = 13
"""Three derivatives 6, errors of update gate 2, candidate 1, state 3, reset gate 1."""
