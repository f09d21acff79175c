"""``[conventional]``: how GPUs and CPUs train a job, where the cluster has such instead of RPUs."""

from typing import Literal

from rpucluster.config import Spec


class ConventionalSpec(Spec):
    """What Megatron-LM and its kin let one choose; the defaults are its best practice since Korthikanti et al. 2022."""

    recompute: Literal["none", "selective", "full"] = "selective"
    """What is computed again on the way back instead of kept: nothing; scores, softmax and contexts of attention;
    or everything but the inputs of each block (of each layer, where there are no blocks)."""
    sequence_parallel: bool = True
    """Whether tensor ranks share norms and residual sums by tokens, which turns each of their all-reduces into a
    reduce-scatter and an all-gather (Korthikanti et al. 2022)."""
    scatter_gather: bool = True
    """Whether tensor ranks send a share each to the next stage, and gather it there (Narayanan et al. 2021)."""
    sends: Literal["together", "apart"] = "together"
    """Whether a stage sends and receives at the same time, as Megatron-LM does, or one after the other in blocking
    pairs, as DeepSpeed's pipeline engine does."""
    overlap_tensor: bool = True
    """Whether collectives of tensor ranks on the way back run beside the products that make gradients of weights."""
    overlap_data: bool = False
    """Whether the all-reduce of gradients runs beside the last backward pass."""
    fused_accumulation: bool = True
    """Whether gradients of weights are added up inside the product, instead of by a kernel of their own."""
