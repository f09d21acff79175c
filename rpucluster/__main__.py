"""``python -m rpucluster`` is the same as ``rpucluster``."""

import sys

from rpucluster.cli import main

sys.exit(main())
