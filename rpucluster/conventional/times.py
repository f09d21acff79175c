"""How long one layer takes for one microbatch on the tensor ranks of a stage."""

from typing import NamedTuple

from rpucluster.conventional.collectives import tensor_collectives
from rpucluster.conventional.links import Links
from rpucluster.conventional.setting import Setting
from rpucluster.conventional.work import Work
from rpucluster.processor import Processor


class LayerTimes(NamedTuple):
    """One layer and microbatch, on each of the ranks that share it; the seconds come first and make a slot."""

    forward_s: float
    backward_s: float
    """Errors of inputs and gradients of weights, their accumulation included."""
    recompute_s: float
    """What of the forward pass is done again on the way back."""
    tensor_s: float
    """Collectives of the tensor ranks that nothing hides, forward, back and recomputed."""
    flops: float
    """Floating-point operations of matrix products on one rank, recomputation included."""
    link_energy_J: float
    """Of the collectives, on all ranks together."""


def layer_times(work: Work, setting: Setting, processor: Processor, links: Links) -> LayerTimes:
    """Price one layer for one microbatch."""
    layer, samples, ranks = work.layer, setting.microbatch, setting.parallel.tensor
    word, options = setting.element_bytes, setting.options
    arrays = layer.arrays
    vectors = samples * layer.positions * layer.passes / arrays
    rows, cols = (layer.rows / ranks, work.lines) if work.split == "output" else (layer.rows, work.lines / ranks)

    forward = processor.product_s(arrays, vectors, rows, cols, word)
    errors = processor.product_s(arrays, vectors, cols, rows, word)
    gradients = processor.product_s(arrays, rows, cols, vectors, word)
    if not options.fused_accumulation:
        # the kernel reads what the product wrote, and reads and writes the sum
        gradients += processor.stream_s(2 * arrays * rows * cols * (setting.gradient_bytes + word))
    elementwise = processor.stream_s(
        samples * word * (work.whole_traffic * setting.whole_share + work.shared_traffic / ranks), work.kernels
    )
    attention = _attention_s(work, setting, processor)
    ahead, back = tensor_collectives(work, setting, links, gradients)
    macs, core = work.macs / ranks, (attention, layer.digital_macs / ranks) if work.scores else (0.0, 0.0)
    redone = {"none": 0.0, "selective": core[0], "full": forward + elementwise + attention}[options.recompute]
    again = {"none": 0.0, "selective": core[1], "full": macs}[options.recompute]
    if work.ends:
        redone = again = 0.0
    passes = 2 if options.recompute == "full" and not work.ends else 1
    return LayerTimes(
        forward_s=forward + elementwise + attention,
        # twice the traffic of the way forward: an error is read for each value read, and written for each written
        backward_s=errors + gradients + 2 * (elementwise + attention),
        recompute_s=redone,
        tensor_s=passes * ahead.modelled_s + back.modelled_s,
        flops=2 * samples * (3 * macs + again),
        link_energy_J=passes * ahead.energy_J + back.energy_J,
    )


def _attention_s(work: Work, setting: Setting, processor: Processor) -> float:
    """Seconds forward of products without weights: scores of all heads and their contexts, with the softmax between."""
    layer, samples, ranks, word = work.layer, setting.microbatch, setting.parallel.tensor, setting.element_bytes
    if not layer.digital_macs:
        return 0.0
    tokens = layer.positions
    if not work.scores:  # a router, whole on each rank: one product of tokens and experts
        return processor.product_s(1, samples * tokens, layer.digital_macs / (tokens * work.lines), work.lines, word)
    heads = work.scores / tokens**2
    features = layer.digital_macs / (2 * work.scores)
    count = samples * heads / ranks
    return (
        processor.product_s(count, tokens, tokens, features, word)
        + processor.product_s(count, tokens, features, tokens, word)
        + processor.stream_s(samples * work.score_traffic / ranks * word, 2)
    )
