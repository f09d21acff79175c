"""One experiment as a TOML file describes it: `load_job(name_or_path)` -> `Job`.

Every table is a frozen `Spec` whose keys are those of the file.  What one key alone can get wrong is checked
beside the key; what several keys can get wrong together, in the validators of their table or of `Job`.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, PlainValidator, field_serializer, field_validator, model_validator
from pydantic_core import PydanticKnownError

from rpucluster.algorithms import (
    Algorithm,
    DeviceChoice,
    MixedPrecision,
    OneSided,
    Sgd,
    Transfer,
    VectorCell,
    algorithm_from,
    require_whole_pulses,
)
from rpucluster.config import AsTable, Seconds, Spec, apply_override, find, read_toml, validated
from rpucluster.devices import Device, device_from
from rpucluster.kernels import require_batch_noise
from rpucluster.model import Activation, Bias, DenseLayer, Loss, Model, TensorSplit, default_name, mlp
from rpucluster.periphery import Management
from rpucluster.settings import Tolerances, UpdateSettings, bytes_per_cell

Count = Annotated[int, Field(ge=1)]
Counts = Annotated[tuple[Count, ...], Field(strict=False)]
Bits = Annotated[int, Field(ge=1, le=64)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _device_value(value: Any) -> bool | float | tuple[float, ...]:
    """A switch, a number or the nodes of a curve, as they are written."""
    if isinstance(value, list | tuple):
        return tuple(_number(node) for node in value)
    return value if isinstance(value, bool) else _number(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticKnownError("float_type")
    return float(value)


DeviceValue = Annotated[Any, PlainValidator(_device_value)]
"""A parameter of a device; which kind it has, the device checks."""


class LayerDeviceSpec(Spec):
    """``[model.layer.device]``: how the cross-points of one layer differ from those of ``[device]``."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, DeviceValue] = Field(init=False)

    preset: str | None = None
    """Starts from this preset instead, without the parameters that ``[device]`` overrides; left out, the
    other keys of the table override what ``[device]`` says."""

    def on(self, base: "DeviceSpec") -> Device:
        """The layer's device.  Raises `ValueError` for parameters that it does not have."""
        overrides = dict(self.__pydantic_extra__ or {})
        if self.preset is not None:
            return device_from(self.preset, overrides)
        return device_from(base.preset, base.overrides | overrides)


class DeviceSpec(Spec):
    """``[device]``: what every cross-point is made of."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, DeviceValue] = Field(init=False)
    """Parameters of the device that differ from the preset's, such as ``dw_min = 0.002``."""

    preset: str = "rpu-baseline"
    """``"rpu-baseline"`` (the paper's device), ``"ideal"``, ``"floating-point"`` or another of
    `rpucluster.devices`; every other key of the table overrides one of its parameters."""
    devices_per_weight: Annotated[int, Field(ge=1, le=255)] = 1
    """Devices at each cross-point, whose mean is the weight."""
    device_choice: DeviceChoice = "all"
    """Which of several devices take an update: ``"all"``, always the first (``"fixed"``), or one minibatch this
    one, the next minibatch the next (``"cyclic"``)."""
    one_sided: bool = False
    """Whether a weight is the difference of two devices that are only raised."""
    refresh_every: Annotated[int, Field(ge=0)] = 100
    """Updates between looks at all one-sided pairs, which reset what has saturated; 0 for none."""
    refresh_upper: float = 0.75
    """A pair is reset where its larger device is above this share of the mean upper bound ..."""
    refresh_lower: float = 0.25
    """... and the smaller one above this share."""
    fast: LayerDeviceSpec | None = None
    """``[device.fast]``: how the devices that gather gradients in a transfer algorithm differ, in the layers
    without a device table of their own."""

    @property
    def overrides(self) -> dict[str, DeviceValue]:
        """The parameters that differ from the preset's."""
        return dict(self.__pydantic_extra__ or {})

    @model_validator(mode="after")
    def _check(self) -> Self:
        device_from(self.preset, self.overrides)
        if self.fast is not None and not self.fast.on(self).pulsed:
            raise ValueError("[device.fast] has exact weights; write a preset of devices with pulses")
        _ = self.cell
        return self

    @property
    def cell(self) -> Algorithm | None:
        """How several devices make a weight; None where each has one."""
        if self.one_sided and self.devices_per_weight > 1:
            raise ValueError("one_sided = true is two devices per weight already; leave devices_per_weight out")
        if self.one_sided:
            return OneSided(
                refresh_every=self.refresh_every, refresh_upper=self.refresh_upper, refresh_lower=self.refresh_lower
            )
        if self.devices_per_weight > 1:
            return VectorCell(devices=self.devices_per_weight, choice=self.device_choice)
        return None


class AlgorithmSpec(Spec):
    """``[algorithm]``: how pulses train the weights."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any] = Field(init=False)
    """Settings of the kind, such as ``transfer_every = 2``."""

    kind: str = "sgd"
    """``"sgd"``, ``"tiki_taka"``, ``"tiki_taka_v2"``, ``"chopped_tiki_taka_v2"``, ``"agad"`` or
    ``"mixed_precision"``; the other keys are those of `rpucluster.algorithms`."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm.  Raises `ValueError` for settings that it does not have."""
        return algorithm_from(self.kind, self.__pydantic_extra__ or {})

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ = self.algorithm
        return self


class LayerSpec(Spec):
    """One ``[[model.layer]]``."""

    kind: Literal["dense"] = "dense"
    """The kind of layer; fully connected is the only one today."""
    name: str | None = None
    """What tables call the layer, and ``--set model.layer.NAME.key=value`` where it is written; left out,
    it is called ``dense1``, ``dense2``, ... by its position."""
    inputs: Count | None = None
    """Inputs per sample; needed for the first layer, elsewhere the outputs of the layer before."""
    outputs: Count
    """Outputs per sample."""
    activation: Activation | None = None
    """Left out: that of ``[model]``, and ``"identity"`` for the last layer, whose softmax is in the loss."""
    bias: Bias | None = None
    """Left out: that of ``[model]``."""
    tensor_split: TensorSplit | None = None
    """Left out: that of ``[parallel]``."""
    device: LayerDeviceSpec | None = None
    """Left out: that of ``[device]``."""
    algorithm: AlgorithmSpec | None = None
    """Left out: that of ``[algorithm]``."""


class ModelSpec(Spec):
    """``[model]``: the network, by a preset or layer by layer."""

    preset: Literal["mlp"] | None = None
    """``"mlp"``: fully connected layers through `sizes`.  Left out where ``[[model.layer]]`` spells the
    layers out."""
    sizes: Counts | None = None
    """Features, hidden units of each layer, classes; at least two numbers.  Belongs to the preset."""
    activation: Activation = "sigmoid"
    """Of the hidden layers; the last has none, since the softmax is in the loss."""
    loss: Loss = "softmax-cross-entropy"
    """What the network is trained to lower; the only one today."""
    bias: Bias = "column"
    """``"column"``: one more always-on input line of each array; it opens a new column of tiles where the
    inputs fill the tiles already, and `plan` says so.  ``"digital"``: added and trained exactly by the
    digital units.  ``"none"``: no bias."""
    layer: Annotated[tuple[LayerSpec, ...], Field(strict=False)] | None = None
    """The layers in order, in place of `preset` and `sizes`."""

    @cached_property
    def network(self) -> Model:
        """The shapes of all layers."""
        if self.layer is None:
            return mlp(self.sizes or (), self.activation, self.bias)
        layers: list[DenseLayer] = []
        for i, spec in enumerate(self.layer):
            last = i == len(self.layer) - 1
            inputs = spec.inputs if spec.inputs is not None or not layers else layers[-1].outputs
            if inputs is None:
                raise ValueError("the first [[model.layer]] has no inputs; write the features of a sample")
            layers.append(
                DenseLayer(
                    name=default_name(i) if spec.name is None else spec.name,
                    inputs=inputs,
                    outputs=spec.outputs,
                    activation=spec.activation or ("identity" if last else self.activation),
                    bias=spec.bias or self.bias,
                    tensor_split=spec.tensor_split,
                )
            )
        return Model(layers=tuple(layers), loss=self.loss)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.layer is not None and (self.preset is not None or self.sizes is not None):
            raise ValueError("preset with sizes and [[model.layer]] are two ways to say it; keep one of them")
        if self.layer is None and (self.preset is None or self.sizes is None):
            missing = "preset" if self.preset is None else "sizes"
            raise ValueError(
                f'{missing} is missing; write preset = "mlp" and sizes = [64, 10], or [[model.layer]] tables'
            )
        _ = self.network  # its checks raise ValueError
        return self


class DataSpec(Spec):
    """``[data]``: what to train and to test on; read by `rpucluster.data.load_data`.

    Paths are relative to the current directory unless they are absolute or start with ``~``.
    """

    name: Literal["digits", "mnist", "parquet"]
    """``"digits"``: scikit-learn's handwritten digits, 1437 to train and the last 360 to test.  ``"mnist"``:
    IDX files.  ``"parquet"``: any Parquet file with vectors and labels."""
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
        belongs |= dict.fromkeys(("image_column", "label_column", "test_path", "test_fraction"), ("parquet",))
        for key, names in belongs.items():
            if self.name not in names and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f'{key} is for name = {" or ".join(map(_quoted, names))}, not "{self.name}"; remove it'
                )
        if self.name != "digits" and self.path is None:
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
    """Runs of layers per accelerator under an interleaved schedule; only 1 today."""
    data: Count = 1
    """Replicas of everything, each with its own devices."""
    expert: Count = 1
    """Accelerators that share the experts of a layer; only 1 today."""
    schedule: Literal["gpipe", "1f1b"] = "gpipe"
    """``"gpipe"``: all forwards, then all backwards; ``"1f1b"``: one forward, one backward in turn.  Both
    update after the last, so both train alike."""
    data_sync: Literal["factors", "average"] = "factors"
    """``"factors"``: the replicas exchange inputs and errors, and each fires the updates of all samples.
    ``"average"``: they train apart and average their weights every `average_every` steps."""
    average_every: Count = 64
    """Steps between averagings, for ``data_sync = "average"``."""
    placement: Annotated[tuple[Literal["tensor", "pipeline", "data"], ...], Field(strict=False)] = (
        "tensor",
        "pipeline",
        "data",
    )
    """Which kind of neighbours sit closest together on the network, innermost axis first."""

    @field_validator("schedule", mode="before")
    @classmethod
    def _schedule_is_there(cls, value: Any) -> Any:
        if value in ("interleaved", "async"):
            raise ValueError(f'"{value}" is not available yet; write "gpipe" or "1f1b"')
        return value

    @field_validator("data_sync", mode="before")
    @classmethod
    def _data_sync_is_there(cls, value: Any) -> Any:
        if value == "gradient":
            raise ValueError('"gradient" is not available yet; write "factors" or "average"')
        return value

    @field_validator("virtual_stages", "expert")
    @classmethod
    def _only_one(cls, value: int) -> int:
        if value != 1:
            raise ValueError(f"{value} is not available yet; write 1")
        return value

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
    weight_bits: Bits = 32
    """Weights that replicas average."""


class EvaluateSpec(Spec):
    """``[evaluate]``: when and how to test."""

    every: Count = 1
    """Epochs between tests; the last epoch is always tested."""
    batch: Count = 64
    """Samples that pass together."""


class RunSpec(Spec):
    """``[run]``: how the host computes; nothing here changes the experiment."""

    arrays: Literal["auto", "numpy", "cupy"] = "auto"
    """Where weights live: ``"cupy"`` is a GPU; ``"auto"`` takes it where there is one."""
    tolerances: Tolerances = "auto"
    """Whether the tolerances of cells are ``"stored"``, 8 or more bytes of each, or ``"recomputed"`` from their
    random stream where a pulse falls; ``"auto"`` is what was measured faster."""
    accelerators_per_worker: Count = 1
    """Accelerators that one process hosts."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Threads that share a large update or read of an accelerator on CPUs; results do not depend on them.  Processes
    compute at the same time, so their number times this should not exceed the cores."""
    checkpoint_every: Seconds = 300.0
    """Wall time between checkpoints, which are written at the end of an epoch: ``"0 s"`` after each,
    ``"inf s"`` only after the last."""


class Job(Spec):
    """Everything that a job file says."""

    name: str
    """What runs and reports call the job; left out in the file, it is the file's name without ``.toml``."""
    model: ModelSpec
    data: DataSpec
    train: TrainSpec
    device: DeviceSpec = DeviceSpec()
    algorithm: AlgorithmSpec = AlgorithmSpec()
    update: Annotated[UpdateSettings, AsTable()] = UpdateSettings()
    """``[update]``: how pulses carry an update."""
    forward: Annotated[Management, AsTable()] = Management()
    """``[forward]``: noise and bound management of reads on the way forward."""
    backward: Annotated[Management, AsTable()] = Management()
    """``[backward]``: the same on the way back."""
    parallel: ParallelSpec = ParallelSpec()
    words: WordsSpec = WordsSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    run: RunSpec = RunSpec()

    @field_validator("name")
    @classmethod
    def _names_a_directory(cls, value: str) -> str:
        # run directories are named after the job
        if value in ("", ".", "..") or any(letter in "/\\" or not letter.isprintable() for letter in value):
            raise ValueError(f"{value!r} cannot name a run directory; write a plain word, such as digits")
        return value

    @property
    def network(self) -> Model:
        """The shapes of all layers."""
        return self.model.network

    def device_of(self, layer: int) -> Device:
        """The device at the cross-points of layer `layer`, counted from 0."""
        layers = self.model.layer
        own = LayerDeviceSpec() if layers is None else layers[layer].device or LayerDeviceSpec()
        return own.on(self.device)

    def devices(self) -> tuple[Device, ...]:
        """Those of all layers, and of their planes of gradients."""
        layers = range(len(self.network.layers))
        return (*map(self.device_of, layers), *map(self.fast_device_of, layers))

    def fast_device_of(self, layer: int) -> Device:
        """The device of the plane that gathers the gradients of layer `layer`, where there is such a plane."""
        layers = self.model.layer
        if self.device.fast is None or (layers is not None and layers[layer].device is not None):
            return self.device_of(layer)
        return self.device.fast.on(self.device)

    def algorithm_of(self, layer: int) -> Algorithm:
        """How the pulses of layer `layer` train it; exact weights need no pulses and know plain descent only."""
        layers = self.model.layer
        own = None if layers is None else layers[layer].algorithm
        algorithm = (own or self.algorithm).algorithm
        if not self.device_of(layer).pulsed:
            return Sgd()
        return self.device.cell or algorithm if isinstance(algorithm, Sgd) else algorithm

    def bytes_per_weight(self, layer: int) -> int:
        """Bytes of host memory that each weight of layer `layer` takes."""
        planes, numbers = self.algorithm_of(layer).memory
        return planes * bytes_per_cell(self.run.tolerances, self.device_of(layer)) + 4 * numbers

    @model_validator(mode="after")
    def _check(self) -> Self:
        for i, layer in enumerate(self.network.layers):
            try:
                device = self.device_of(i)
            except ValueError as error:
                raise ValueError(f"[model.layer.device] of {layer.name}: {error}") from None
            algorithm = self.algorithm_of(i)
            if self.device.cell is not None and algorithm.kind != "sgd":
                raise ValueError(
                    f'[device] has several devices per weight, which [algorithm] kind = "{algorithm.kind}" does not '
                    f'train; write kind = "sgd", or devices_per_weight = 1 and one_sided = false'
                )
            if self.update.noise_per == "batch" and isinstance(algorithm, Transfer):
                raise ValueError(
                    f'[update] noise_per = "batch" but [algorithm] kind = "{algorithm.kind}" works sample by sample; '
                    f'write "sample"'
                )
            if self.update.pulses == "none" and device.pulsed and not isinstance(algorithm, Sgd):
                raise ValueError(
                    f'[update] pulses = "none" trains single devices by [algorithm] kind = "sgd", which {layer.name} '
                    f'does not have; write pulses = "stochastic"'
                )
            try:
                if self.update.noise_per == "batch":
                    require_batch_noise(device)
                if isinstance(algorithm, Transfer | MixedPrecision):
                    require_whole_pulses(algorithm.kind, device)
            except ValueError as error:
                raise ValueError(f"[device] of {layer.name}: {error}") from None
        return self


JOB_TABLES = tuple(key for key in Job.model_fields if key != "name")
"""The top-level tables of a job file, which ``--set`` paths start with."""


def load_job(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read a job from a file, or one that comes with rpucluster by its name, such as ``"digits"``.

    `overrides` are ``section.key=value``, applied in order before anything is checked.  Raises `ConfigError`,
    one line that names the file, the table, the key, the value and what to write.
    """
    path = find("job", name_or_path)
    tables = read_toml(path)
    for override in overrides:
        apply_override(tables, override)
    origin = f"{path} with --set {' '.join(overrides)}" if overrides else str(path)
    return validated(Job, {"name": path.stem} | tables, origin)


def _quoted(word: str) -> str:
    return f'"{word}"'


def _rate(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise ValueError(f"{value!r} is no learning rate; write one above 0, or [[0, 0.01], [10, 0.005]]")
    return float(value)
