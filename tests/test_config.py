"""The shared TOML loader: what is found, what ``--set`` changes, the one line of every mistake."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from rpucluster import config
from rpucluster.config import (
    AsTable,
    BytesPerSecond,
    Seconds,
    Spec,
    apply_override,
    find,
    read_toml,
    shipped,
    split_overrides,
    validated,
    write_toml,
)
from rpucluster.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Settings:
    bit_length: int = 10
    noise_per: Literal["sample", "batch"] = "sample"

    def __post_init__(self) -> None:
        if self.bit_length < 1:
            raise ValueError(f"bit_length = {self.bit_length}: write at least 1")


class Axis(Spec):
    name: str
    bandwidth: BytesPerSecond = 50e9
    latency: Seconds = 500e-9


class Network(Spec):
    axis: Annotated[tuple[Axis, ...], Field(strict=False)] = ()


class Inner(Spec):
    depth: int = 1


class Machine(Spec):
    size: int
    ratio: float = 0.5
    name: str | None = None
    network: Network = Network()
    update: Annotated[Settings, AsTable()] = Settings()
    spare: Annotated[Settings, AsTable()] | None = None
    inner: Inner | None = None


def check(**tables: Any) -> Machine:
    return validated(Machine, {"size": 1, **tables}, "ring8.toml")


def refusal(**tables: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check(**tables)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- finding and reading ---


def test_a_path_comes_before_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").write_text("")
    assert find("job", "digits") == Path("digits")


@pytest.mark.parametrize("name", ["digits", "digits.toml", "jobs/digits.toml"])
def test_shipped_files_are_found_by_name_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("job", name) == shipped("job")["digits"]


def test_a_wrong_name_gives_the_nearest_and_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "shipped", lambda kind: {"digits": Path(), "mlp_1b": Path()})
    with pytest.raises(ConfigError) as caught:
        find("job", "digit.toml")
    assert str(caught.value) == (
        'no job file digit.toml: not a file, nor one of the shipped digits, mlp_1b; did you mean "digits"?'
    )
    with pytest.raises(ConfigError, match=r"^no job file /elsewhere/digits\.toml: not a file"):
        find("job", "/elsewhere/digits.toml")


def test_the_home_directory_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.toml").write_text("")
    assert find("job", "~/mine.toml") == tmp_path / "mine.toml"
    with pytest.raises(ConfigError, match=r"^job file ~nobody-of-this-name/x\.toml: .*home"):
        find("job", "~nobody-of-this-name/x.toml")


def test_broken_toml_names_file_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text("[train]\nepochs = = 5\n")
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    assert str(caught.value) == f"{path}: not valid TOML: Invalid value (at line 2, column 10)"
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="not valid TOML: 'utf-8' codec"):
        read_toml(path)
    with pytest.raises(ConfigError, match=r"gone\.toml: cannot be read: No such file or directory"):
        read_toml(tmp_path / "gone.toml")


# --- overrides ---


def test_overrides_go_to_the_file_that_has_the_table() -> None:
    sets = ["train.epochs=5", "network.axis.board.latency=1 us", "train.seed = 2"]
    assert split_overrides(sets, {"job": ("train", "model"), "cluster": ("network",)}) == {
        "job": ["train.epochs=5", "train.seed = 2"],
        "cluster": ["network.axis.board.latency=1 us"],
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "--set train.epochs: write section.key=value, such as train.epochs=5"),
        ("epochs=5", "--set epochs=5: write section.key=value, such as train.epochs=5"),
        ("trian.epochs=5", '--set trian.epochs=5: unknown section trian; did you mean "train"?'),
        ("zzz.epochs=5", "--set zzz.epochs=5: unknown section zzz; sections are train, network"),
    ],
)
def test_overrides_that_belong_to_no_file(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split_overrides([override], {"job": ("train",), "cluster": ("network",)})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        (" 5 ", 5),
        ("0.1", 0.1),
        ("true", True),
        ("[[0, 0.1], [5, 0.05]]", [[0, 0.1], [5, 0.05]]),
        ('"5"', "5"),
        ("5 min", "5 min"),
        ("100 GB/s", "100 GB/s"),
        ("1f1b", "1f1b"),
        ("~/data/mnist", "~/data/mnist"),
        ("", ""),
        ("a=b", "a=b"),
        ("5\nseed = 2", "5\nseed = 2"),  # a value, never a second key
    ],
)
def test_an_override_is_toml_or_else_a_string(text: str, value: object) -> None:
    tables: dict[str, Any] = {"train": {"epochs": 1}}
    apply_override(tables, f"train.epochs={text}")
    assert tables == {"train": {"epochs": value}}


def test_items_of_an_array_of_tables_go_by_name() -> None:
    tables: dict[str, Any] = {"network": {"axis": [{"name": "board"}, {"name": "rack"}]}}
    apply_override(tables, "network.axis.rack.bandwidth=100 GB/s")
    apply_override(tables, "network.axis.board.more.deep=1")
    assert tables == {
        "network": {"axis": [{"name": "board", "more": {"deep": 1}}, {"name": "rack", "bandwidth": "100 GB/s"}]}
    }


def test_an_override_makes_the_tables_that_the_file_leaves_out() -> None:
    tables: dict[str, Any] = {}
    apply_override(tables, "device.preset=ideal")
    assert tables == {"device": {"preset": "ideal"}}


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("network.axis.bord.size=2", "nothing is named bord there; there is board, rack"),
        ("network.axis.size=2", "name the item first, as in network.axis.NAME.bandwidth=..."),
        ("network.lane.x.size=2", "nothing is named x there; write a name into the file first"),
        ("train.epochs.x=2", "epochs is a value, not a section"),
        ("train.=2", "write section.key=value, such as train.epochs=5"),
        (".epochs=2", "write section.key=value, such as train.epochs=5"),
        ("train.epochs", "write section.key=value, such as train.epochs=5"),
    ],
)
def test_overrides_that_lead_nowhere(override: str, reason: str) -> None:
    tables = {
        "network": {"axis": [{"name": "board"}, {"name": "rack"}], "lane": [{"size": 1}]},
        "train": {"epochs": 1},
    }
    with pytest.raises(ConfigError) as caught:
        apply_override(tables, override)
    assert str(caught.value) == f"--set {override}: {reason}"


# --- checking ---


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"sise": 2}, '[sise]: unknown key; did you mean "size"?'),
        ({"inner": {"dept": 2}}, '[inner] dept: unknown key; did you mean "depth"?'),
        ({"update": {"bitlength": 2}}, '[update] bitlength: unknown key; did you mean "bit_length"?'),
        ({"update": {"bit-length": 2}}, '[update] bit-length: unknown key; did you mean "bit_length"?'),
        ({"spare": {"noise_pr": 2}}, '[spare] noise_pr: unknown key; did you mean "noise_per"?'),
        (
            {"network": {"axis": [{"name": "a"}, {"name": "b", "bandwith": "1 GB/s"}]}},
            '[network.axis #2] bandwith: unknown key; did you mean "bandwidth"?',
        ),
        ({"inner": {"zzz": 2}}, "[inner] zzz: unknown key; known keys are depth"),
    ],
)
def test_an_unknown_key_names_file_table_key_and_the_nearest(tables: dict[str, Any], message: str) -> None:
    assert refusal(**tables) == f"ring8.toml: {message}"


def test_a_misspelt_required_key_is_told_as_misspelt() -> None:
    with pytest.raises(ConfigError) as caught:
        validated(Machine, {"sizes": 2}, "ring8.toml")
    assert str(caught.value) == 'ring8.toml: [sizes]: unknown key; did you mean "size"?'


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"size": "2"}, '[size] = "2": input should be a valid integer'),
        ({"size": 2.0}, "[size] = 2.0: input should be a valid integer"),
        ({"size": True}, "[size] = true: input should be a valid integer"),
        ({"ratio": "0.5"}, '[ratio] = "0.5": input should be a valid number'),
        ({"inner": 3}, "[inner] = 3: input should be a table"),
        ({"update": [1]}, "[update] = [1]: input should be a table"),
        ({"network": {"axis": {"name": "a"}}}, '[network] axis = {"name": "a"}: input should be an array'),
        ({"network": {"axis": [{}]}}, "[network.axis #1] name: missing; write it"),
        ({"update": {"bit_length": "2"}}, '[update] bit_length = "2": input should be a valid integer'),
        ({"update": {"bit_length": 0}}, "[update]: bit_length = 0: write at least 1"),
        ({"update": {"noise_per": "x"}}, "[update] noise_per = \"x\": input should be 'sample' or 'batch'"),
        (
            {"network": {"axis": [{"name": "a", "latency": 5}]}},
            '[network.axis #1] latency: 5 is not a time; write a string with a unit, such as "80 ns"',
        ),
        (
            {"network": {"axis": [{"name": "a", "bandwidth": "50 GB"}]}},
            '[network.axis #1] bandwidth: "50 GB": GB is not a unit of bandwidth; '
            'write a string with a unit, such as "50 GB/s"',
        ),
        (
            {"name": list(range(50))},
            f"[name] = {str(list(range(50)))[:57]}...: input should be a valid string",
        ),
    ],
)
def test_a_wrong_value_names_file_table_key_and_value(tables: dict[str, Any], message: str) -> None:
    assert refusal(**tables) == f"ring8.toml: {message}"


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        validated(Machine, {}, "ring8.toml")
    assert str(caught.value) == "ring8.toml: [size]: missing; write it"


def test_specs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(check(), "size", 2)  # noqa: B010


# --- writing ---


def test_what_is_written_reads_back_equal() -> None:
    machine = check(
        network={"axis": [{"name": "board", "latency": "1 us"}, {"name": "rack", "bandwidth": "400 Gb/s"}]},
        update={"bit_length": 3},
        spare={"noise_per": "batch"},
        inner={"depth": 2},
        name='quotes " and \\ and é',
    )
    assert validated(Machine, tomllib.loads(write_toml(machine)), "again") == machine


def test_unset_keys_are_left_out() -> None:
    assert tomllib.loads(write_toml(check())) == {
        "size": 1,
        "ratio": 0.5,
        "network": {"axis": []},
        "update": {"bit_length": 10, "noise_per": "sample"},
    }


@given(st.floats(0, allow_nan=False), st.floats(0, 1))
def test_every_number_reads_back_to_the_bit(latency: float, ratio: float) -> None:
    machine = check(ratio=ratio, network={"axis": [{"name": "a", "latency": f"{latency!r} s"}]})
    again = validated(Machine, tomllib.loads(write_toml(machine)), "again")
    assert again.network.axis[0].latency == latency
    assert again == machine
