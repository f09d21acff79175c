"""Seconds, joules and bytes of one training step on conventional accelerators, in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rpucluster.cluster import Cluster
from rpucluster.conventional.chain import Chain, chain
from rpucluster.conventional.links import Links, Spent
from rpucluster.conventional.memory import Memory, check, parameters, stage_memories
from rpucluster.conventional.setting import Setting
from rpucluster.conventional.times import LayerTimes, layer_times
from rpucluster.errors import PlanError
from rpucluster.job import Job
from rpucluster.model import Layer


@dataclass(frozen=True, kw_only=True)
class ConventionalStep:
    """One step of all replicas; the seconds add up to `modelled_step_s`.

    Compute and tensor seconds are those of the slowest stage.
    """

    modelled_step_s: float
    forward_s: float
    backward_s: float
    recompute_s: float
    tensor_s: float
    """Collectives of tensor ranks that nothing hides."""
    pipeline_s: float
    """Sends between stages."""
    bubble_s: float
    """Waiting while the pipeline fills and empties."""
    data_s: float
    """All-reduces of gradients, of an embedding that two stages share too, that nothing hides."""
    optimizer_s: float
    energy_J: float
    """Of accelerators and links in this step."""
    flops: float
    """Floating-point operations of matrix products on all accelerators, recomputation included."""
    accelerators: int
    samples: int
    memory: Memory
    """Of the fullest accelerator."""

    @property
    def communication_s(self) -> float:
        """Seconds in which accelerators do nothing but communicate."""
        return self.tensor_s + self.pipeline_s + self.data_s

    @property
    def communication_fraction(self) -> float:
        """Their share of the step."""
        return self.communication_s / self.modelled_step_s

    @property
    def samples_per_s(self) -> float:
        """Samples trained on per modelled second."""
        return self.samples / self.modelled_step_s

    @property
    def flops_per_s(self) -> float:
        """Of each accelerator, recomputation included."""
        return self.flops / (self.modelled_step_s * self.accelerators)


def setting_of(job: Job) -> Setting:
    """How a job is spread.  Raises `PlanError` for what conventional training has not."""
    return Setting(
        parallel=job.parallel,
        minibatch=job.train.minibatch,
        microbatch=job.train.microbatch,
        options=job.conventional,
        words=job.words,
    )


def baseline(job: Job, cluster: Cluster, links: Links | None = None, network: Chain | None = None) -> ConventionalStep:
    """One training step of a job on a cluster of GPUs or CPUs, whose `[parallel] data_sync` is an all-reduce there.

    Calls on one network of accelerators may share `links`, those of one network of layers `network`, a `chain` of them;
    both take longer to make than a plan takes.  Raises `PlanError` for a plan that the cluster cannot take,
    `CapacityError` for one that does not fit.
    """
    return step(job.network.layers if network is None else network, setting_of(job), cluster, links)


def step(
    layers: Sequence[Layer] | Chain, setting: Setting, cluster: Cluster, links: Links | None = None
) -> ConventionalStep:
    """The same of a chain of layers.

    With m microbatches over p stages in v runs each, a step takes m slots of the slowest stage and one of each other
    stage over v, which for equal stages is m + (p - 1) / v (Narayanan et al. 2021, section 2.2); GPipe and 1F1B differ
    in memory only.
    """
    processor, parallel = cluster.processor, setting.parallel
    links = Links(cluster.network) if links is None else links
    accelerators = parallel.tensor * parallel.pipeline * parallel.data
    if accelerators > cluster.accelerators:
        raise PlanError(
            f"[parallel] tensor x pipeline x data = {accelerators} but {cluster.name} has {cluster.accelerators} "
            f"accelerators; lower one, or raise a [network.axis] size"
        )
    if cluster.faults.slowdowns:
        raise PlanError(
            "[faults] slow_accelerators is for RPUs; leave it out for GPUs and CPUs, or lower their peak_rate"
        )
    network = layers if isinstance(layers, Chain) else chain(layers)
    stages, chunks = parallel.pipeline, parallel.virtual_stages
    cuts = network.cuts(stages * chunks)
    memories = stage_memories(network, cuts, setting)
    fullest = max(range(stages), key=lambda stage: memories[stage].total)
    check(memories[fullest], fullest, processor, cluster.name)

    # (stages, kinds) times (kinds, columns): what a stage takes for one microbatch
    layers_of = network.per_run(cuts).reshape(chunks, stages, -1).sum(axis=0)
    priced = [layer_times(work, setting, processor, links) for work in network.kinds]
    totals = layers_of @ np.array(priced)
    slots = totals[:, :4].sum(axis=1)
    slowest = int(slots.argmax())
    slot, microbatches = LayerTimes(*totals[slowest].tolist()), setting.microbatches

    send_s, send_J = _sends(network, cuts, setting, links)
    # while the pipeline fills, the other stages take a slot of theirs, sends included
    bubble = (float(slots.sum() - slots[slowest]) + (stages - 1) * send_s) / chunks

    held = float((layers_of @ np.array([parameters(work, setting) for work in network.kinds])).max())
    data = links.data(setting, held * setting.gradient_bytes)
    data_s = data.hidden(slot.backward_s if setting.options.overlap_data else 0.0).modelled_s
    tied = sum(work.layer.weights for work in network.kinds if work.layer.tied) / parallel.tensor
    shared = links.ends(setting, tied * setting.gradient_bytes)
    optimizer_s = processor.stream_s(held * optimizer_traffic(setting))

    flush_s = data_s + shared.modelled_s + optimizer_s
    modelled = microbatches * (float(slots[slowest]) + send_s) + bubble + flush_s
    groups = parallel.tensor * stages
    link_energy = (
        parallel.data * microbatches * (float(totals[:, 5].sum()) + send_J)
        + groups * data.energy_J
        + parallel.tensor * parallel.data * shared.energy_J
    )
    busy_s = microbatches * (float(slots.sum()) + stages * send_s) + stages * flush_s
    board = processor.busy_power * busy_s + processor.idle_power * (stages * modelled - busy_s)
    return ConventionalStep(
        modelled_step_s=modelled,
        forward_s=microbatches * slot.forward_s,
        backward_s=microbatches * slot.backward_s,
        recompute_s=microbatches * slot.recompute_s,
        tensor_s=microbatches * slot.tensor_s,
        pipeline_s=microbatches * send_s,
        bubble_s=bubble,
        data_s=data_s + shared.modelled_s,
        optimizer_s=optimizer_s,
        energy_J=parallel.tensor * parallel.data * board + link_energy,
        flops=parallel.tensor * parallel.data * microbatches * float(totals[:, 4].sum()),
        accelerators=accelerators,
        samples=parallel.data * setting.minibatch,
        memory=memories[fullest],
    )


def optimizer_traffic(setting: Setting) -> float:
    """Bytes that an Adam step in mixed precision reads and writes per parameter.

    The passes of Megatron-LM's optimizer, B: gradients to single precision, unscaled (8) and checked, their norm (4),
    clipped (8), Adam itself (four words read, three written, 28), and the weights back to their own width (4 read).
    """
    return (setting.gradient_bytes + 4) + 8 + 4 + 8 + 28 + (4 + setting.element_bytes)


def _sends(network: Chain, cuts: NDArray[np.int64], setting: Setting, links: Links) -> tuple[float, float]:
    """Seconds of a slot that a stage spends on sends, and joules of those of all stages, for one microbatch.

    An activation is sent on and an error back for each of its runs.  Together, a send hides the receipt that goes the
    other way; apart, both take their time.
    """
    if setting.parallel.pipeline == 1:
        return 0.0, 0.0
    ranks, options = setting.parallel.tensor, setting.options
    lasts = [network.kinds[kind].layer for kind in network.last(cuts)]
    elements = max(layer.outputs + layer.carried for layer in lasts)
    nbytes = setting.microbatch * setting.element_bytes * elements
    shares = setting.sequence_parallel or options.scatter_gather
    sent = links.stages(setting, nbytes / ranks if shares else nbytes)
    # sequence parallelism goes on with the shares
    gathered = Spent() if setting.sequence_parallel or not shares else links.tensor("all_gather", setting, nbytes)
    each_run = 2 if options.sends == "together" else 4
    crossings = 2 * (len(cuts) - 2)
    return (
        each_run * setting.parallel.virtual_stages * (sent.modelled_s + gathered.modelled_s),
        crossings * (ranks * sent.energy_J + gathered.energy_J),
    )
