"""Seconds, joules and bytes of one training step on conventional accelerators, in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass

from rpucluster.cluster import Cluster
from rpucluster.conventional.links import Links, Spent
from rpucluster.conventional.memory import Memory, check, stage_memory, stage_parameters
from rpucluster.conventional.setting import Setting
from rpucluster.conventional.stages import runs
from rpucluster.conventional.times import LayerTimes, layer_times
from rpucluster.conventional.work import Work, works
from rpucluster.errors import PlanError
from rpucluster.job import Job
from rpucluster.model import Layer
from rpucluster.processor import Processor


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


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """One stage and microbatch."""

    forward_s: float = 0.0
    backward_s: float = 0.0
    recompute_s: float = 0.0
    tensor_s: float = 0.0
    flops: float = 0.0
    link_energy_J: float = 0.0

    @property
    def slot_s(self) -> float:
        return self.forward_s + self.backward_s + self.recompute_s + self.tensor_s


def baseline(job: Job, cluster: Cluster, links: Links | None = None) -> ConventionalStep:
    """One training step of a job on a cluster of GPUs or CPUs; `links` may be shared by calls on one network.

    Raises `PlanError` for a plan that the cluster cannot take, `CapacityError` for one that does not fit.
    """
    setting = Setting(
        parallel=job.parallel,
        minibatch=job.train.minibatch,
        microbatch=job.train.microbatch,
        options=job.conventional,
        words=job.words,
    )
    return step(job.network.layers, setting, cluster, links)


def step(layers: Sequence[Layer], setting: Setting, cluster: Cluster, links: Links | None = None) -> ConventionalStep:
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
    chain = works(layers)
    stages, chunks = parallel.pipeline, parallel.virtual_stages
    cut = runs(chain, stages * chunks)
    own = [cut[stage::stages] for stage in range(stages)]
    memory = max(
        ((stage_memory(stage, own[stage], setting), stage) for stage in range(stages)), key=lambda held: held[0].total
    )
    check(*memory, processor, cluster.name)

    priced: dict[tuple[object, ...], LayerTimes] = {}
    slots = [_stage([work for run in mine for work in run], setting, processor, links, priced) for mine in own]
    slowest = max(range(stages), key=lambda stage: slots[stage].slot_s)
    slot, microbatches = slots[slowest], setting.microbatches

    send_s, send_J = _sends(cut, setting, links)
    sent_s = microbatches * send_s
    # while the pipeline fills, the other stages take a slot of theirs, sends included
    others = sum(each.slot_s for each in slots) - slot.slot_s
    bubble = (others + (stages - 1) * send_s) / chunks

    parameters = [sum(stage_parameters(run, setting) for run in mine) for mine in own]
    data = links.data(setting, max(parameters) * setting.gradient_bytes)
    data_s = max(0.0, data.modelled_s - slot.backward_s) if setting.options.overlap_data else data.modelled_s
    tied = sum(work.layer.weights for work in cut[-1] if work.layer.tied) / parallel.tensor
    shared = links.ends(setting, tied * setting.gradient_bytes)
    optimizer_s = processor.stream_s(max(parameters) * optimizer_traffic(setting))

    modelled = microbatches * slot.slot_s + sent_s + bubble + data_s + shared.modelled_s + optimizer_s
    groups = parallel.tensor * stages
    link_energy = (
        parallel.data * microbatches * (sum(each.link_energy_J for each in slots) + send_J)
        + groups * data.energy_J
        + parallel.tensor * parallel.data * shared.energy_J
    )
    busy = [microbatches * (each.slot_s + send_s) + data_s + shared.modelled_s + optimizer_s for each in slots]
    board = sum(processor.busy_power * seconds + processor.idle_power * (modelled - seconds) for seconds in busy)
    return ConventionalStep(
        modelled_step_s=modelled,
        forward_s=microbatches * slot.forward_s,
        backward_s=microbatches * slot.backward_s,
        recompute_s=microbatches * slot.recompute_s,
        tensor_s=microbatches * slot.tensor_s,
        pipeline_s=sent_s,
        bubble_s=bubble,
        data_s=data_s + shared.modelled_s,
        optimizer_s=optimizer_s,
        energy_J=parallel.tensor * parallel.data * board + link_energy,
        flops=parallel.tensor * parallel.data * microbatches * sum(each.flops for each in slots),
        accelerators=accelerators,
        samples=parallel.data * setting.minibatch,
        memory=memory[0],
    )


def optimizer_traffic(setting: Setting) -> float:
    """Bytes that an Adam step in mixed precision reads and writes per parameter.

    The passes of Megatron-LM's optimizer, B: gradients to single precision, unscaled (8) and checked, their norm (4),
    clipped (8), Adam itself (four words read, three written, 28), and the weights back to their own width (4 read).
    """
    return (setting.gradient_bytes + 4) + 8 + 4 + 8 + 28 + (4 + setting.element_bytes)


def _stage(
    stage: Sequence[Work],
    setting: Setting,
    processor: Processor,
    links: Links,
    priced: dict[tuple[object, ...], LayerTimes],
) -> _Stage:
    times = []
    for work in stage:
        shape = tuple(value for key, value in vars(work.layer).items() if key != "name")
        key = (work.split, work.gathers, work.ends, shape)
        if key not in priced:
            priced[key] = layer_times(work, setting, processor, links)
        times.append(priced[key])
    return _Stage(**{name: sum(getattr(each, name) for each in times) for name in vars(_Stage())})


def _sends(cut: Sequence[Sequence[Work]], setting: Setting, links: Links) -> tuple[float, float]:
    """Seconds of a slot that a stage spends on sends, and joules of those of all stages, for one microbatch.

    An activation is sent on and an error back for each of its runs.  Together, a send hides the receipt that goes the
    other way; apart, both take their time.
    """
    if setting.parallel.pipeline == 1:
        return 0.0, 0.0
    ranks, options = setting.parallel.tensor, setting.options
    elements = max(run[-1].layer.outputs + run[-1].layer.carried for run in cut[:-1])
    nbytes = setting.microbatch * setting.element_bytes * elements
    shares = setting.sequence_parallel or options.scatter_gather
    sent = links.stages(setting, nbytes / ranks if shares else nbytes)
    # sequence parallelism goes on with the shares
    gathered = Spent() if setting.sequence_parallel or not shares else links.tensor("all_gather", setting, nbytes)
    each_run = 2 if options.sends == "together" else 4
    crossings = 2 * (len(cut) - 1)
    return (
        each_run * setting.parallel.virtual_stages * (sent.modelled_s + gathered.modelled_s),
        crossings * (ranks * sent.energy_J + gathered.energy_J),
    )
