"""`main`: one command line, its exit code, and one line for what the user can mend."""

import errno
import os
import sys
from collections.abc import Sequence

import typer

from rpucluster.cli import experiments, models, projection, runs, search
from rpucluster.cli.app import app
from rpucluster.errors import RpuclusterError

INTERRUPTED, BROKEN_PIPE = 130, 141
"""Exit codes of a process that a signal ends, as shells report them."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

# typer brings its own click in newer versions and uses the public one in older ones; its BadParameter is of
# the family in both
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


for _command in (
    runs.run,
    models.plan,
    models.profile,
    models.collective,
    projection.project,
    search.search,
    runs.watch,
    runs.report,
    experiments.reproduce,
    experiments.doctor,
):
    app.command()(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` by default) and return its exit code.

    What the user can mend ends in one line on standard error and never in a traceback.
    """
    command = typer.main.get_command(app)
    try:
        # typer's own main would print usage errors in several lines
        with command.make_context("rpucluster", list(sys.argv[1:] if arguments is None else arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as done:
        return done.exit_code
    except RpuclusterError as error:
        return _fail(str(error), error.exit_code)
    except _UsageError as error:
        return _fail(f"{_usage_message(error)}; try rpucluster --help", 2)
    except KeyboardInterrupt as interrupt:
        return _fail(str(interrupt) or "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # whoever read our output has gone; the interpreter must not try to flush to it once more
        _drop_output()
        return BROKEN_PIPE
    except OSError as error:
        # files are written by functions that tell which; what is left is standard output
        if error.filename is not None or error.errno not in _NO_ROOM:
            raise
        _drop_output()
        return _fail(f"standard output cannot be written: {error.strerror}", 1)
    return 0


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> int:
    print(f"rpucluster: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _usage_message(error: Exception) -> str:
    message: str = error.format_message() if hasattr(error, "format_message") else str(error)
    return message[:1].lower() + message[1:].rstrip(".")
