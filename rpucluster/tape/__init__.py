"""An accelerator's part of a program as rows of numbers.

Operations that communicate are not on the tape; `Tape.window` says where their payloads lie.
"""

from rpucluster.tape.places import Tape as Tape
from rpucluster.tape.places import Window as Window
from rpucluster.tape.writer import write as write
