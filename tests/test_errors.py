"""The exception tree is the one drawn in the docstring, and every exception crosses a process boundary."""

import inspect
import pickle
import re

import pytest

from rpucluster import errors
from rpucluster.errors import ConfigError, InputError, RpuclusterError, RunError

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


def _drawn() -> dict[str, str]:
    """Class -> base, read from the drawing: four columns of indentation are one level."""
    bases: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│ ]*)(?:[├└]── )?(\w+Error)\b", line)
        if match:
            level = (match.start(2) - 4) // 4
            path[level:] = [match[2]]
            if level:
                bases[match[2]] = path[level - 1]
    return bases


def test_the_docstring_draws_the_tree_that_there_is() -> None:
    assert _drawn() == {kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES if kind is not RpuclusterError}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_pickling(kind: type[RpuclusterError]) -> None:
    error = pickle.loads(pickle.dumps(kind("digits.toml: [train] epochs = 0")))
    assert type(error) is kind
    assert str(error) == "digits.toml: [train] epochs = 0"


@pytest.mark.parametrize("kind", CLASSES)
def test_the_exit_code_tells_the_users_mistake_from_a_failed_run(kind: type[RpuclusterError]) -> None:
    assert kind.exit_code == (2 if issubclass(kind, InputError) else 1)


def test_input_and_run_errors_are_apart() -> None:
    assert not issubclass(InputError, RunError)
    assert not issubclass(RunError, InputError)


def test_no_error_is_a_value_error() -> None:
    # pydantic turns a ValueError raised in a validator into its own report; ours must pass unchanged
    assert not any(issubclass(kind, ValueError) for kind in CLASSES)
    assert issubclass(errors.UnitError, ConfigError)
