"""Training algorithms on pulses, and the planes of devices that they work on."""

from rpucluster.algorithms.plane import Part as Part
from rpucluster.algorithms.plane import Plane as Plane
from rpucluster.algorithms.plane import Storage as Storage
from rpucluster.algorithms.plane import checked as checked
