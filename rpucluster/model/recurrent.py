"""Recurrent layers as arrays: input and state side by side on the columns, gates on the rows, a step a vector.

A step waits for the state that the one before has made, so its digital work is not hidden behind passes.  As in the
paper's follow-up (Gokmen, Rasch and Haensch, Front. Neurosci. 12:745, 2018) all gates of a layer are one array.
"""

from rpucluster.model import operations
from rpucluster.model.layer import Bias, Layer


def lstm(*, name: str, inputs: int, units: int, steps: int, bias: Bias = "column", last: bool = False) -> Layer:
    """Long short-term memory (Hochreiter and Schmidhuber 1997, with forget gates): four gates of `units`.

    It takes `steps` vectors of `inputs` and gives as many of `units`, or with `last` the last of them only.
    """
    return _layer(
        "lstm", name, inputs, units, steps, 4, 1, (operations.LSTM, operations.LSTM_BACK, 6), bias=bias, last=last
    )


def gru(*, name: str, inputs: int, units: int, steps: int, bias: Bias = "column", last: bool = False) -> Layer:
    """Gated recurrent units (Cho et al. 2014): three gates, in two passes a step, since the candidate takes the state
    that the reset gate has let through."""
    return _layer(
        "gru", name, inputs, units, steps, 3, 2, (operations.GRU, operations.GRU_BACK, 4), bias=bias, last=last
    )


def _layer(
    kind: str,
    name: str,
    inputs: int,
    units: int,
    steps: int,
    gates: int,
    passes: int,
    work: tuple[int, int, int],
    *,
    bias: Bias,
    last: bool,
) -> Layer:
    forward, back, kept = work
    return Layer(
        name=name,
        kind="lstm" if kind == "lstm" else "gru",
        rows=gates * units,
        cols=inputs + units + (bias == "column"),
        positions=passes * steps,
        inputs=inputs * steps,
        input_features=inputs,
        outputs=units * (1 if last else steps),
        output_features=units,
        activation="tanh",
        bias=bias,
        operations=steps * units * (forward + gates * (bias == "digital")),
        back_operations=steps * units * back,
        kept=steps * units * kept,
        recurrent=True,
    )
