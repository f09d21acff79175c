"""Which blocks of layers go to which stage of a pipeline."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from rpucluster.conventional.work import Work
from rpucluster.errors import PlanError


def runs(works: Sequence[Work], count: int) -> list[tuple[Work, ...]]:
    """Cut a chain into `count` runs of whole blocks, as even as can be in multiply-accumulates.

    Logits go with the last block and do not count, as in Megatron-LM, so equal blocks are shared evenly.  Raises
    `PlanError` where there are fewer blocks than runs.
    """
    blocks: list[list[Work]] = []
    for work in works:
        if not blocks or (work.opens and work.layer.kind != "logits"):
            blocks.append([])
        blocks[-1].append(work)
    if count > len(blocks):
        raise PlanError(
            f"{count} runs of layers ([parallel] pipeline times virtual_stages) but the network has {len(blocks)} "
            f"blocks; write at most as many"
        )
    sizes = [sum(work.macs for work in block if work.layer.kind != "logits") for block in blocks]
    ends = list(accumulate(sizes))
    cuts = [0]
    for run in range(1, count):
        # the end of a block that is nearest to an even share, leaving at least one block to each run
        least, most = cuts[-1] + 1, len(blocks) - (count - run)
        share = ends[-1] * run / count
        cuts.append(min(range(least, most + 1), key=lambda cut: abs(ends[cut - 1] - share)))
    cuts.append(len(blocks))
    return [tuple(work for block in blocks[first:last] for work in block) for first, last in pairwise(cuts)]
