"""Device models: what one coincidence of pulses does to one weight.

Each model is a frozen dataclass; its tolerances are made of *lanes*, numbers of 16 bits that are
functions of a random stream's key, so they may be stored or made again where they are needed.
"""

from rpucluster.devices.base import LANE_BLOCK as LANE_BLOCK
from rpucluster.devices.base import LANE_UNIT as LANE_UNIT
from rpucluster.devices.base import LAW_CONSTANTS as LAW_CONSTANTS
from rpucluster.devices.base import Cells as Cells
from rpucluster.devices.base import Device as Device
from rpucluster.devices.base import Int16 as Int16
from rpucluster.devices.base import Law as Law
from rpucluster.devices.base import PulsedDevice as PulsedDevice
from rpucluster.devices.base import draw_lanes as draw_lanes
from rpucluster.devices.constant_step import ConstantStep as ConstantStep
from rpucluster.devices.exponential_step import ExponentialStep as ExponentialStep
from rpucluster.devices.floating_point import FloatingPoint as FloatingPoint
from rpucluster.devices.linear_step import LinearStep as LinearStep
from rpucluster.devices.linear_step import SoftBounds as SoftBounds
from rpucluster.devices.piecewise_step import PiecewiseStep as PiecewiseStep
from rpucluster.devices.power_step import PowerStep as PowerStep
from rpucluster.devices.presets import DEVICE_PRESETS as DEVICE_PRESETS
from rpucluster.devices.presets import device_from as device_from
from rpucluster.devices.pulsed import Pulsed as Pulsed
from rpucluster.devices.soft_bounds_reference import SoftBoundsReference as SoftBoundsReference
