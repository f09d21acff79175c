"""A whole job file, and how it is read.

Every table is a frozen `Spec` whose keys are those of the file.  What one key alone can get wrong is checked
beside the key; what several keys can get wrong together, in the validators of their table or of `Job`.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self

from pydantic import field_validator, model_validator

from rpucluster.algorithms import (
    Algorithm,
    MixedPrecision,
    Sgd,
    Transfer,
    require_whole_pulses,
)
from rpucluster.config import AsTable, Spec, apply_override, find, read_toml, validated
from rpucluster.devices import Device
from rpucluster.job.conventional import ConventionalSpec
from rpucluster.job.devices import AlgorithmSpec, DeviceSpec, LayerDeviceSpec
from rpucluster.job.model import ModelSpec
from rpucluster.job.training import DataSpec, EvaluateSpec, ParallelSpec, RunSpec, TrainSpec, WordsSpec
from rpucluster.kernels import require_batch_noise
from rpucluster.model import Model
from rpucluster.periphery import Management
from rpucluster.settings import UpdateSettings, bytes_per_cell


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
    conventional: ConventionalSpec = ConventionalSpec()
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
        table = self.model.table_of(layer)
        return self._device if table is None or table.device is None else table.device.on(self.device)

    @cached_property
    def _device(self) -> Device:
        """At the cross-points of layers that have none of their own."""
        return LayerDeviceSpec().on(self.device)

    def devices(self) -> tuple[Device, ...]:
        """Those of all layers, and of their planes of gradients."""
        layers = range(len(self.network.layers))
        return (*map(self.device_of, layers), *map(self.fast_device_of, layers))

    def fast_device_of(self, layer: int) -> Device:
        """The device of the plane that gathers the gradients of layer `layer`, where there is such a plane."""
        table = self.model.table_of(layer)
        if self.device.fast is None or (table is not None and table.device is not None):
            return self.device_of(layer)
        return self.device.fast.on(self.device)

    def algorithm_of(self, layer: int) -> Algorithm:
        """How the pulses of layer `layer` train it; exact weights need no pulses and know plain descent only."""
        table = self.model.table_of(layer)
        own = None if table is None else table.algorithm
        algorithm = (own or self.algorithm).algorithm
        if not self.device_of(layer).pulsed:
            return Sgd()
        return self.device.cell or algorithm if isinstance(algorithm, Sgd) else algorithm

    def bytes_per_weight(self, layer: int) -> int:
        """Bytes of host memory that each weight of layer `layer` takes."""
        planes, numbers = self.algorithm_of(layer).memory
        numbers += self.parallel.data_sync == "gradient"
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
            if self.parallel.data_sync == "gradient" and not isinstance(algorithm, Sgd):
                raise ValueError(
                    f'[parallel] data_sync = "gradient" programs single devices with [algorithm] kind = "sgd", which '
                    f'{layer.name} does not have; write "factors" or "average"'
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
