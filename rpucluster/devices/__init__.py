"""Device models: what one coincidence of pulses does to one weight.

Each model is a frozen dataclass; its tolerances are functions of a random stream's key, so they need no memory.
"""

from rpucluster.devices.base import CELL_ARRAYS as CELL_ARRAYS
from rpucluster.devices.base import Cells as Cells
from rpucluster.devices.base import Device as Device
from rpucluster.devices.constant_step import ConstantStep as ConstantStep
from rpucluster.devices.floating_point import FloatingPoint as FloatingPoint
from rpucluster.devices.presets import DEVICE_PRESETS as DEVICE_PRESETS
from rpucluster.devices.presets import device_from as device_from
