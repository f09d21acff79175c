"""The commands: parse, call, print, exit code.

What takes long to import is imported inside the commands, so that ``--help`` and a misspelt option answer at once.
"""

from rpucluster.cli.main import BROKEN_PIPE as BROKEN_PIPE
from rpucluster.cli.main import INTERRUPTED as INTERRUPTED
from rpucluster.cli.main import main as main
