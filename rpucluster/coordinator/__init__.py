"""The training loop that reads the score twice: the pool performs the program, the timeline prices it."""

from rpucluster.coordinator.callbacks import Callbacks as Callbacks
from rpucluster.coordinator.events import Progress as Progress
from rpucluster.coordinator.interrupts import RunInterrupted as RunInterrupted
from rpucluster.coordinator.resume import Source as Source
from rpucluster.coordinator.resume import find as find
from rpucluster.coordinator.status import read_status as read_status
from rpucluster.coordinator.training import Run as Run
from rpucluster.coordinator.training import run as run
