"""The program: ``rpucluster``, or ``python -m rpucluster``."""

import signal
import sys
from typing import NoReturn


def start() -> NoReturn:
    """Run the command line of this process and end it, with one line wherever Ctrl-C finds it."""
    try:
        from rpucluster.cli import main  # takes half a second, in which Ctrl-C may come

        code = main()
    except KeyboardInterrupt:
        print("rpucluster: error: interrupted", file=sys.stderr)
        code = 128 + signal.SIGINT
    # all has been said; what Ray does when a process exits has to end, so that none of its own are left
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    start()
