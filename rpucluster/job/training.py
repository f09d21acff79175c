"""The tables of a job that say on what and how it is trained, over which accelerators, and how this host runs it."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_serializer, field_validator, model_validator

from rpucluster.config import Seconds, Spec
from rpucluster.job.interval import Interval, IntervalField
from rpucluster.job.layers import Count
from rpucluster.model import TensorSplit
from rpucluster.schedule import Schedule
from rpucluster.settings import Tolerances

Bits = Annotated[int, Field(ge=1, le=64)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class DataSpec(Spec):
    """``[data]``: what to train and to test on; read by `rpucluster.data.load_data`.

    Paths are relative to the current directory unless they are absolute or start with ``~``.
    """

    name: Literal["digits", "mnist", "parquet", "none"]
    """``"digits"``: scikit-learn's handwritten digits, 1437 to train and the last 360 to test.  ``"mnist"``:
    IDX files.  ``"parquet"``: any Parquet file with vectors and labels.  ``"none"``: the job is planned and modelled,
    not trained."""
    samples: Count | None = None
    """``none``: samples of an epoch, for the modelled time of a training."""
    path: str | None = None
    """``mnist``: the directory of the four IDX files, gzipped or not.  ``parquet``: the file to train on."""
    image_column: str = "image"
    """``parquet``: the column with a list of numbers in each row, all of the same length."""
    label_column: str = "label"
    """``parquet``: the column of integer class numbers from 0."""
    test_path: str | None = None
    """``parquet``: the file to test on, with the same columns; or else write `test_fraction`."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """``parquet``: how much of the file to test on instead of training, from its end in file order."""
    train_samples: Count | None = None
    """Trains on the first so many samples only; left out, on all."""
    test_samples: Count | None = None
    """Tests on the first so many samples only; left out, on all."""
    validation: Count | None = None
    """Holds the last so many training samples out and tests on them instead of on the test set, which then plays
    no part: what settings are chosen on.  `train_samples` and `test_samples` count what that leaves."""
    nudge: Annotated[float, Field(ge=0, le=1)] = 0.0
    """``digits`` and ``mnist``: adds four copies of every training image, shifted by this part of a pixel up,
    down, left and right, so an epoch has five times as many samples; 0 adds none."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        belongs: dict[str, tuple[str, ...]] = {"path": ("mnist", "parquet")}
        belongs["nudge"] = ("digits", "mnist")
        belongs["samples"] = ("none",)
        belongs |= dict.fromkeys(("image_column", "label_column", "test_path", "test_fraction"), ("parquet",))
        for key, names in belongs.items():
            if self.name not in names and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f'{key} is for name = {" or ".join(map(_quoted, names))}, not "{self.name}"; remove it'
                )
        if self.name in ("mnist", "parquet") and self.path is None:
            what = "the directory with its IDX files" if self.name == "mnist" else "the file to train on"
            raise ValueError(f'name = "{self.name}" needs path; write {what}')
        if self.name == "parquet" and (self.test_path is None) == (self.test_fraction is None):
            count = "neither" if self.test_path is None else "both"
            raise ValueError(f'name = "parquet" needs test_path or test_fraction, {count} written; write one of them')
        return self


class TrainSpec(Spec):
    """``[train]``: how to train."""

    epochs: Count
    """How often the training set is gone through."""
    minibatch: Count = 1
    """Samples per replica between updates; the global batch is this times ``[parallel] data``.  What is left
    over at the end of an epoch, less than a global batch, is not trained on in that epoch."""
    microbatch: Count = 1
    """Samples that travel through the pipeline together; must divide `minibatch`, and is `minibatch` where it
    is left out.  It is part of the experiment also without a pipeline: products are made in its size."""
    learning_rate: float | tuple[tuple[int, float], ...]
    """One rate, or ``[[epoch, rate], ...]``: each from its epoch on, counted from 0, which comes first."""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 1
    """What all random numbers are made from, those of the devices included: same seed, same experiment."""
    shuffle: bool = True
    """Whether each epoch goes through the samples in an order of its own, or all in file order."""
    initial_scale: Positive = 1.0
    """Weights start uniform in +-initial_scale / sqrt(inputs + 1), the bias column included, and are clipped
    to the bounds of their devices.  The paper does not say how its weights start; 1 is a common choice, with
    which the sums of a layer are somewhat smaller than its inputs."""

    @property
    def microbatches(self) -> int:
        """Of a step of a replica."""
        return self.minibatch // self.microbatch

    @model_validator(mode="before")
    @classmethod
    def _microbatch_is_minibatch(cls, table: Any) -> Any:
        if isinstance(table, dict) and "minibatch" in table and "microbatch" not in table:
            return table | {"microbatch": table["minibatch"]}
        return table

    @field_validator("learning_rate", mode="plain")
    @classmethod
    def _rates(cls, value: Any) -> float | tuple[tuple[int, float], ...]:
        if not isinstance(value, list | tuple):
            return _rate(value)
        pairs = []
        for pair in value:
            if not isinstance(pair, list | tuple) or len(pair) != 2 or type(pair[0]) is not int:
                raise ValueError(f"{pair!r} is not [epoch, rate]; write [[0, 0.01], [10, 0.005]] or the like")
            pairs.append((pair[0], _rate(pair[1])))
        epochs = [epoch for epoch, _ in pairs]
        if epochs[:1] != [0]:
            first = f"starts at epoch {epochs[0]}" if epochs else "is empty"
            raise ValueError(f"the schedule {first}; write [0, rate] first")
        for before, after in pairwise(epochs):
            if after <= before:
                raise ValueError(f"epoch {after} stands after epoch {before}; write epochs in ascending order")
        return tuple(pairs)

    @field_serializer("learning_rate")
    def _as_toml(self, value: float | tuple[tuple[int, float], ...]) -> float | list[list[int | float]]:
        return value if isinstance(value, float) else [[epoch, rate] for epoch, rate in value]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.minibatch % self.microbatch:
            most = min(self.microbatch, self.minibatch)
            fits = next(n for n in range(most, 0, -1) if self.minibatch % n == 0)
            raise ValueError(
                f"microbatch = {self.microbatch} does not divide minibatch = {self.minibatch}; write {fits}"
            )
        return self

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        if isinstance(self.learning_rate, float):
            return self.learning_rate
        return next(rate for first, rate in reversed(self.learning_rate) if first <= epoch)


class ParallelSpec(Spec):
    """``[parallel]``: over how many accelerators, tensor x pipeline x data, and how; more may be there."""

    tensor: Count = 1
    """Accelerators that share each layer, in blocks of whole tile rows or columns."""
    tensor_split: TensorSplit = "auto"
    """``"output"``: blocks of tile rows; the outputs must be gathered.  ``"input"``: blocks of tile columns;
    the outputs must be summed.  ``"auto"``: whichever moves fewer bits, layer by layer."""
    pipeline: Count = 1
    """Stages, each a run of layers."""
    virtual_stages: Count = 1
    """Runs of layers of each stage, for ``schedule = "interleaved"``; at least 2 there, else 1."""
    data: Count = 1
    """Replicas of everything, each with its own devices."""
    expert: Count = 1
    """Replicas that share the experts of each mixture, so that each holds some of them; divides `data`."""
    schedule: Schedule = "gpipe"
    """``"gpipe"``: all forwards, then all backwards; ``"1f1b"``: one forward, one backward in turn;
    ``"interleaved"``: the same over several runs of layers a stage.  These update after the last backward, so they
    train alike.  ``"async"``: a stage updates after each backward, so a microbatch may come back through other weights
    than it went forward through."""
    data_sync: Literal["factors", "gradient", "average"] = "factors"
    """``"factors"``: the replicas exchange inputs and errors, and each fires the updates of all samples.
    ``"gradient"``: each adds the dense gradient of its samples up digitally, the replicas exchange that, and it is
    programmed one row at a time; the same without the exchange where there is one replica.
    ``"average"``: they train apart and average their weights every `average_every` steps."""
    average_every: Count = 64
    """Steps between averagings, for ``data_sync = "average"``."""
    placement: Annotated[tuple[Literal["tensor", "pipeline", "data"], ...], Field(strict=False)] = (
        "tensor",
        "pipeline",
        "data",
    )
    """Which kind of neighbours sit closest together on the network, innermost axis first."""

    @model_validator(mode="after")
    def _only_interleaved_has_virtual_stages(self) -> Self:
        if self.schedule == "interleaved" and self.virtual_stages == 1:
            raise ValueError('schedule = "interleaved" needs virtual_stages of at least 2; write them, or "1f1b"')
        if self.schedule != "interleaved" and self.virtual_stages > 1:
            raise ValueError(
                f'virtual_stages = {self.virtual_stages} is for schedule = "interleaved", not "{self.schedule}"; '
                f"write 1"
            )
        return self

    @field_validator("placement")
    @classmethod
    def _permutation(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if sorted(value) != ["data", "pipeline", "tensor"]:
            raise ValueError(
                f'[{", ".join(map(_quoted, value))}] must name "tensor", "pipeline" and "data" once each, '
                f"innermost axis first"
            )
        return value


class WordsSpec(Spec):
    """``[words]``: how many bits a number takes on the modelled network; the host has its own words."""

    factor_bits: Bits = 16
    """Activations and errors, of which the updates are made."""
    sum_bits: Bits = 32
    """Partial sums that accelerators add up."""
    gradient_bits: Bits = 32
    """Dense gradients that replicas add up."""
    weight_bits: Bits = 32
    """Weights that replicas average."""


class EvaluateSpec(Spec):
    """``[evaluate]``: when and how to test."""

    every: Count = 1
    """Epochs between tests; the last epoch is always tested."""
    batch: Count = 64
    """Samples that pass together."""


def _hosted(value: Any) -> Any:
    if value != "auto" and (type(value) is not int or value < 1):
        raise ValueError(f'{value!r} is no number of accelerators; write 1 or more, or "auto"')
    return value


class RunSpec(Spec):
    """``[run]``: how the host computes; nothing here changes the experiment."""

    arrays: Literal["auto", "numpy", "cupy"] = "auto"
    """Where weights live: ``"cupy"`` is a GPU; ``"auto"`` takes it where there is one."""
    tolerances: Tolerances = "auto"
    """Whether the tolerances of cells are ``"stored"``, 8 or more bytes of each, or ``"recomputed"`` from their
    random stream where a pulse falls; ``"auto"`` is what was measured faster."""
    accelerators_per_worker: Annotated[int | Literal["auto"], BeforeValidator(_hosted)] = "auto"
    """Accelerators that one process hosts; ``"auto"`` makes as many processes as can compute at the same time."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Threads that share a large update or read of an accelerator on CPUs; results do not depend on them.  Processes
    compute at the same time, so their number times this should not exceed the cores."""
    node_placement: Literal["spread", "pack"] = "spread"
    """On a Ray cluster of several nodes: ``"spread"`` keeps the workers of a replica on one node and replicas apart, as
    far as there is room; ``"pack"`` uses as few nodes as it can."""
    checkpoint_every: IntervalField = Interval(seconds=300.0)
    """Between checkpoints: training steps, ``"200 steps"``, or wall time, ``"5 min"``; ``"inf s"`` writes only the one
    after the last step."""
    restarts: Annotated[int, Field(ge=0)] = 3
    """How often a run whose accelerator is lost goes on from its last checkpoint by itself; Ray only."""
    step_deadline: Annotated[Seconds, Field(gt=0)] = 600.0
    """Wall time without any sign of work from the accelerators after which they count as lost; Ray only.  A step that
    is as slow as that without a fault needs more; ``"inf s"`` waits for ever."""


def _rate(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise ValueError(f"{value!r} is no learning rate; write one above 0, or [[0, 0.01], [10, 0.005]]")
    return float(value)


def _quoted(word: str) -> str:
    return f'"{word}"'
