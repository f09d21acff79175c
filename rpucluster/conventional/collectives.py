"""Which collectives the tensor ranks of a stage need for one layer, and what of them nothing hides.

A layer whose outputs are shared needs its whole inputs and has partial sums of their errors; one whose inputs are
shared has partial sums of its outputs.  Partial sums are all-reduced (Shoeybi et al. 2019), or, in sequence
parallelism, reduce-scattered, and gathered where they are needed whole (Korthikanti et al. 2022, section 4.2.2).
"""

from rpucluster.conventional.links import Links, Spent
from rpucluster.conventional.setting import Setting
from rpucluster.conventional.work import Work


def tensor_collectives(work: Work, setting: Setting, links: Links, gradients_s: float) -> tuple[Spent, Spent]:
    """What those of the way forward cost, and those of the way back, for one microbatch.

    `gradients_s` are the seconds of the product behind which collectives of the way back may hide.
    """
    if setting.parallel.tensor == 1:
        return Spent(), Spent()
    layer, overlap = work.layer, setting.options.overlap_tensor
    word = setting.microbatch * setting.element_bytes
    spread = setting.sequence_parallel
    if work.split == "input":
        outputs = word * layer.outputs
        if spread:
            return links.tensor("reduce_scatter", setting, outputs), links.tensor("all_gather", setting, outputs)
        return links.tensor("all_reduce", setting, outputs), Spent()

    inputs = word * layer.inputs
    ahead = back = Spent()
    if spread:
        gathered = links.tensor("all_gather", setting, inputs)
        ahead += gathered
        back += links.tensor("reduce_scatter", setting, inputs).hidden(gradients_s if overlap else 0.0)
        # what waited in shares is gathered once more for the gradients, beside the product that makes errors
        back += Spent(0.0, gathered.energy_J) if overlap else gathered
    else:
        back += links.tensor("all_reduce", setting, inputs).hidden(gradients_s if overlap else 0.0)
    if work.gathers and not spread:
        ahead += links.tensor("all_gather", setting, word * layer.outputs)
    if layer.embedding:
        # ranks hold words, so what they find is added up; not recomputed, so it counts on the way back
        back += links.tensor("all_reduce", setting, inputs)
    return ahead, back
