"""What rpucluster raises.

    RpuclusterError
    ├── InputError              what the user wrote or named is wrong; the command exits with 2
    │   ├── ConfigError         a job or cluster file, or a --set
    │   │   └── UnitError       a quantity whose number or unit cannot be read
    │   ├── DataError           a data set that is missing, truncated or of the wrong kind
    │   ├── PlanError           parallel degrees that the network or cluster cannot take
    │   │   └── CapacityError   a network that does not fit
    │   └── RunDirectoryError   a run directory that is missing, foreign or already there
    └── RunError                a run that started and could not go on; the command exits with 1
        ├── AcceleratorError    an accelerator failed
        │   └── AcceleratorLostError   its process died or hangs; what it did can be done again
        ├── NumericalError      a sum left the range that fixed point can hold, or is not finite
        └── MissingPackageError an optional package that this request needs

Every message is one line: what was asked, what there is, what to change.  Each class takes that one
message, so every exception survives pickling between processes.
"""


class RpuclusterError(Exception):
    """Base of everything that rpucluster raises on purpose."""

    exit_code = 1


class InputError(RpuclusterError):
    """What the user wrote or named is wrong."""

    exit_code = 2


class ConfigError(InputError):
    """A job file, a cluster file or an override is wrong."""


class UnitError(ConfigError):
    """A quantity whose number or unit cannot be read."""


class DataError(InputError):
    """A data set is missing, truncated or of the wrong kind."""


class PlanError(InputError):
    """The parallel degrees do not suit the network or the cluster."""


class CapacityError(PlanError):
    """The network does not fit on the accelerators."""


class RunDirectoryError(InputError):
    """A run directory is missing, foreign or already there."""


class RunError(RpuclusterError):
    """A run that had started could not go on."""


class AcceleratorError(RunError):
    """An accelerator failed."""


class AcceleratorLostError(AcceleratorError):
    """The process of an accelerator died or hangs; what it did since the last checkpoint can be done again."""


class NumericalError(RunError):
    """A sum left the range of the fixed-point accumulators, or is not a finite number."""


class MissingPackageError(RunError):
    """An optional package is needed for what was asked."""
