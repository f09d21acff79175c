"""The tables of a job that say what weights are made of and how they are trained."""

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, PlainValidator, model_validator
from pydantic_core import PydanticKnownError

from rpucluster.algorithms import (
    Algorithm,
    DeviceChoice,
    OneSided,
    VectorCell,
    algorithm_from,
)
from rpucluster.config import Spec
from rpucluster.devices import Device, device_from


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
