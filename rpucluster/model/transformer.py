"""Transformer blocks as arrays: projections and feed-forward layers hold weights, tokens are the vectors.

What has no weights is digital: scores, softmax and contexts of the attention, norms (before a layer, as in GPT-2),
residual sums, the router of a mixture of experts.  A sample is a sequence.  Attention is counted in full, as in
Narayanan et al. 2021 (section 5.1): a causal mask saves nothing here.
"""

from typing import NamedTuple

from rpucluster.model import operations
from rpucluster.model.layer import Layer


class Experts(NamedTuple):
    """A mixture of experts (Shazeer et al. 2017): `number` feed-forward layers, of which each token takes `routed`."""

    number: int
    routed: int


def block(
    *,
    name: str,
    hidden: int,
    heads: int,
    tokens: int,
    feed_forward: int | None = None,
    experts: Experts | None = None,
    embedding: tuple[int, int] = (0, 0),
) -> list[Layer]:
    """Self-attention and a feed-forward layer of `feed_forward` features (four times `hidden` unless given), each with
    a norm before and a residual sum behind: four layers with weights.

    `embedding` is of the parameters and the operations per sample of what stands before the first block.  Raises
    `ValueError` for heads that do not divide `hidden` and for more experts routed than there are.
    """
    if hidden % heads:
        raise ValueError(f"{heads} heads do not divide hidden = {hidden}; write a divisor")
    if experts is not None and not 1 <= experts.routed <= experts.number:
        raise ValueError(f"{experts.routed} of {experts.number} experts cannot be routed to; write at most as many")
    wide = 4 * hidden if feed_forward is None else feed_forward
    stream, scores = tokens * hidden, heads * tokens**2
    parameters, lookups = embedding
    each = 1 if experts is None else experts.routed

    def layer(kind: str, part: str, **values: object) -> Layer:
        return Layer(name=f"{name}.{part}", kind=kind, positions=tokens, bias="digital", **values)  # type: ignore[arg-type]

    normed = {
        "prepare_operations": operations.NORM * stream,
        "prepare_back_operations": operations.NORM_BACK * stream,
    }
    attention = layer(
        "attention",
        "qkv",
        rows=3 * hidden,
        cols=hidden,
        inputs=stream,
        input_features=hidden,
        outputs=stream,
        output_features=hidden,
        tensor_split="output",
        prepare_operations=normed["prepare_operations"] + lookups,
        prepare_back_operations=normed["prepare_back_operations"] + lookups,
        operations=3 * stream + (1 + operations.SOFTMAX) * scores,
        back_operations=(1 + operations.SOFTMAX_BACK) * scores,
        digital_macs=2 * tokens**2 * hidden,
        kept=3 * stream + scores,  # queries, keys and values, probabilities
        carried=stream,
        digital_parameters=2 * hidden,
        embedding=parameters,
    )
    projection = layer(
        "projection",
        "out",
        rows=hidden,
        cols=hidden,
        inputs=stream,
        input_features=hidden,
        outputs=stream,
        output_features=hidden,
        tensor_split="input",
        operations=2 * stream,
        back_operations=stream,
    )
    count, routed = (1, None) if experts is None else experts
    router = 0 if experts is None else experts.number
    up = layer(
        "feed_forward",
        "up",
        rows=wide,
        cols=hidden,
        arrays=count,
        routed=routed,
        inputs=stream,
        input_features=hidden,
        outputs=each * tokens * wide,
        output_features=wide,
        tensor_split="output",
        operations=2 * each * tokens * wide + operations.SOFTMAX * tokens * router,
        back_operations=each * tokens * wide + operations.SOFTMAX_BACK * tokens * router,
        digital_macs=tokens * hidden * router,
        kept=each * tokens * wide,  # sums before the activation function
        carried=stream,
        dispatch=0 if experts is None else each * stream,
        digital_parameters=2 * hidden + hidden * router,
        **normed,
    )
    # bias, weighting and sum of what the experts give, residual sum
    merge = 0 if experts is None else 2 * experts.routed - 1
    down = layer(
        "feed_forward",
        "down",
        rows=hidden,
        cols=wide,
        arrays=count,
        routed=routed,
        inputs=each * tokens * wide,
        input_features=wide,
        outputs=stream,
        output_features=hidden,
        tensor_split="input",
        collect=0 if experts is None else each * stream,
        operations=(each + merge + 1) * stream,
        back_operations=(1 + merge) * stream,
    )
    return [attention, projection, up, down]


def logits(*, name: str, hidden: int, vocabulary: int, tokens: int, tied: bool) -> Layer:
    """A norm and the sums of every word at every token; `tied` where the embedding counts the weights."""
    stream = tokens * hidden
    return Layer(
        name=name,
        kind="logits",
        rows=vocabulary,
        cols=hidden,
        positions=tokens,
        inputs=stream,
        input_features=hidden,
        outputs=tokens * vocabulary,
        output_features=vocabulary,
        activation="identity",
        bias="none",
        tensor_split="output",
        prepare_operations=operations.NORM * stream,
        prepare_back_operations=operations.NORM_BACK * stream,
        digital_parameters=2 * hidden,
        tied=tied,
    )


def gpt(
    *,
    layers: int,
    hidden: int,
    heads: int,
    sequence: int,
    vocabulary: int,
    feed_forward: int | None = None,
    experts: Experts | None = None,
) -> list[Layer]:
    """A decoder of `layers` blocks between an embedding of words and positions and the tied logits.

    The embedding lies in digital memory: a token takes one line of it, which is no work for an array.  Its parameters
    and lookups count at the first block.  Logits have an array of their own, since the two ends of a pipeline are
    different chips.
    """
    embedding = (hidden * (vocabulary + sequence), 2 * sequence * hidden)  # lookup and position
    blocks = [
        part
        for i in range(layers)
        for part in block(
            name=f"block{i + 1}",
            hidden=hidden,
            heads=heads,
            tokens=sequence,
            feed_forward=feed_forward,
            experts=experts,
            embedding=embedding if i == 0 else (0, 0),
        )
    ]
    return [*blocks, logits(name="logits", hidden=hidden, vocabulary=vocabulary, tokens=sequence, tied=True)]
