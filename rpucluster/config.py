"""Reading TOML files into checked, frozen objects: finding files, applying ``--set``, and one-line errors."""

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import tomli_w
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    PlainSerializer,
    Tag,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import CoreSchema

from rpucluster.errors import ConfigError
from rpucluster.units import parse_quantity

Kind = Literal["job", "cluster"]
_FOLDER: dict[Kind, str] = {"job": "jobs", "cluster": "cluster_configs"}
_SI = {
    "time": "s",
    "bandwidth": "B/s",
    "size": "B",
    "energy": "J",
    "energy per byte": "J/B",
    "power": "W",
    "rate": "op/s",
    "floating-point rate": "FLOP/s",
}


def _quantity(dimension: str) -> Any:
    def read(value: object) -> float:
        try:
            return parse_quantity(value, dimension)
        except ConfigError as error:
            raise ValueError(str(error)) from None

    def write(value: float) -> str:
        return f"{value!r} {_SI[dimension]}"

    return Annotated[float, BeforeValidator(read), PlainSerializer(write, return_type=str)]


Seconds = _quantity("time")
BytesPerSecond = _quantity("bandwidth")
Bytes = _quantity("size")
Joules = _quantity("energy")
JoulesPerByte = _quantity("energy per byte")
Watts = _quantity("power")
OpsPerSecond = _quantity("rate")
FlopsPerSecond = _quantity("floating-point rate")


class Spec(BaseModel):
    """Base of everything that a TOML file describes: frozen, unknown keys refused, no silent conversions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, arbitrary_types_allowed=True
    )


SpecT = TypeVar("SpecT", bound=Spec)


class AsTable:
    """Marks a field of a `Spec` that is a stdlib dataclass, so that a TOML table may be written for it.

    ``update: Annotated[UpdateSettings, AsTable()]``; strict checking alone takes nothing but an instance.
    The keys of the table stay strictly checked, and unknown ones refused.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        inner: Any = handler.resolve_ref_schema(schema)
        inner["strict"] = False
        return schema


def shipped(kind: Kind) -> dict[str, Path]:
    """The files that come with rpucluster, by name: ``shipped("job")["digits"]``."""
    packaged = Path(str(resources.files("rpucluster"))) / "shipped" / _FOLDER[kind]
    folder = packaged if packaged.is_dir() else Path(__file__).parent.parent / _FOLDER[kind]
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(kind: Kind, name_or_path: str | Path) -> Path:
    """The file that the user means: a path, or the name of a shipped one.  Raises `ConfigError`."""
    path = Path(name_or_path)
    try:
        path = path.expanduser()
        if path.is_file():
            return path
    except (OSError, RuntimeError) as error:  # a name that is too long, a home directory that is not there
        raise ConfigError(f"{kind} file {name_or_path}: {error}") from None
    known = shipped(kind)
    if path.stem in known and path.suffix in ("", ".toml") and path.parent.name in ("", _FOLDER[kind]):
        return known[path.stem]
    close = difflib.get_close_matches(path.stem, known, n=1)
    hint = f'; did you mean "{close[0]}"?' if close else ""
    raise ConfigError(f"no {kind} file {name_or_path}: not a file, nor one of the shipped {', '.join(known)}{hint}")


def read_toml(path: Path) -> dict[str, Any]:
    """Parse one TOML file.  Raises `ConfigError` with the file and, from the parser, line and column."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path}: arrays or tables are nested too deeply") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def split_overrides(
    overrides: Iterable[str], tables: Mapping[Kind, Iterable[str]], option: str = "--set"
) -> dict[Kind, list[str]]:
    """Sort ``section.key=value`` overrides by the file whose top-level tables hold the section.

    Raises `ConfigError`, which names the option that the override was given to.
    """
    owner = {table: kind for kind, names in tables.items() for table in names}
    sorted_overrides: dict[Kind, list[str]] = {kind: [] for kind in tables}
    for override in overrides:
        path, equals, _ = override.partition("=")
        table = path.strip().split(".")[0]
        if not equals or "." not in path:
            raise ConfigError(f"{option} {override}: write section.key=value, such as train.epochs=5")
        if table not in owner:
            close = difflib.get_close_matches(table, owner, n=1)
            hint = f'did you mean "{close[0]}"?' if close else f"sections are {', '.join(owner)}"
            raise ConfigError(f"{option} {override}: unknown section {table}; {hint}")
        sorted_overrides[owner[table]].append(override)
    return sorted_overrides


def apply_override(tables: dict[str, Any], override: str, option: str = "--set") -> None:
    """Write one ``section.key=value`` into parsed TOML, in place; the items of an array of tables go by name.

    The value is TOML; what is not valid TOML is taken as a string, so ``bandwidth=100 GB/s`` needs no quotes.
    Raises `ConfigError`, which names the option that the override was given to.
    """
    path, equals, text = override.partition("=")
    try:
        parsed = tomllib.loads(f"value = {text}")
        value = parsed["value"] if len(parsed) == 1 else text.strip()  # a line break starts another key
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text.strip()
    *parents, key = (part.strip() for part in path.split("."))
    if not all((equals, *parents, key)):
        raise ConfigError(f"{option} {override}: write section.key=value, such as train.epochs=5")
    here: Any = tables
    for part in parents:
        if isinstance(here, list):
            named = [item for item in here if isinstance(item, dict) and item.get("name") == part]
            if not named:
                names = [str(item["name"]) for item in here if isinstance(item, dict) and "name" in item]
                there = f"there is {', '.join(names)}" if names else "write a name into the file first"
                raise ConfigError(f"{option} {override}: nothing is named {part} there; {there}")
            here = named[0]
        else:
            here = here.setdefault(part, {})
        if not isinstance(here, dict | list):
            raise ConfigError(f"{option} {override}: {part} is a value, not a section")
    if isinstance(here, list):
        raise ConfigError(f"{option} {override}: name the item first, as in network.axis.NAME.bandwidth=...")
    here[key] = value


def validated(kind: type[SpecT], tables: Mapping[str, Any], origin: str) -> SpecT:
    """Check parsed TOML against a `Spec`.

    Raises `ConfigError` whose one line names the file, the table, the key, the value and what is wrong; a key
    that nothing knows comes with the nearest known one.
    """
    try:
        return kind.model_validate(tables)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_first_problem(kind, error)}") from None


def write_toml(spec: Spec) -> str:
    """The spec as TOML that reads back to an equal spec; keys that are unset are left out."""
    return tomli_w.dumps(_without_none(spec.model_dump(mode="json", by_alias=True)))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value


def _first_problem(kind: type[Spec], error: ValidationError) -> str:
    # an unknown key explains a missing one (a misspelling is both), so it is told first
    problems = sorted(error.errors(), key=lambda problem: problem["type"] not in _UNKNOWN)
    problem = problems[0]
    place = problem["loc"]
    if problem["type"] in _UNKNOWN:
        close = difflib.get_close_matches(str(place[-1]), _keys_at(kind, place[:-1]), n=1, cutoff=0.5)
        known = ", ".join(_keys_at(kind, place[:-1]))
        hint = f'did you mean "{close[0]}"?' if close else f"known keys are {known}"
        return f"{_place(place[:-1], str(place[-1]))}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{_place(place)}: missing; write it"
    message = _IN_TOML_WORDS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{_place(place)}: {message}" if place else message
    return f"{_place(place)} = {_shown(problem['input'])}: {message[:1].lower()}{message[1:]}"


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_IN_TOML_WORDS = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dataclass_type"), "input should be a table"),
    **dict.fromkeys(("tuple_type", "list_type"), "input should be an array"),
}


def _place(place: Sequence[str | int], unknown: str | None = None) -> str:
    """``("network", "axis", 0, "size")`` as people write it: ``[network.axis #1] size``.

    Words that are not identifiers are pydantic's names for the members of a union, save an unknown key.
    """
    words: list[str] = []
    for part in place:
        if isinstance(part, int) and words:
            words[-1] += f" #{part + 1}"
        elif isinstance(part, str) and part.isidentifier():
            words.append(part)
    if unknown is not None:
        words.append(unknown)
    if len(words) < 2:
        return f"[{words[0]}]" if words else "file"
    return f"[{'.'.join(words[:-1])}] {words[-1]}"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(kind: Any, place: Sequence[str | int]) -> list[str]:
    """The keys that are known at a place of a `Spec`, through lists, optional tables and dataclasses."""
    annotation: Any = kind
    for part in place:
        fields = _field_types(kind)
        if part in fields:
            annotation = fields[part]
            kind = _table_type(annotation)
        else:
            kind = _tagged(annotation, part) or kind
    return list(_field_types(kind))


def _tagged(annotation: Any, tag: str | int) -> Any:
    """The member of a union that carries a tag, if there is one."""
    for member in get_args(annotation):
        kind, *marks = get_args(member) or (member,)
        if any(isinstance(mark, Tag) and mark.tag == tag for mark in marks):
            return kind
    return None


def _field_types(kind: Any) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    if hasattr(kind, "__dataclass_fields__"):
        schema = TypeAdapter(kind).json_schema()
        return dict.fromkeys(schema.get("properties", {}))
    return {}


def _table_type(annotation: Any) -> Any:
    """The table inside ``list[T]``, ``tuple[T, ...]`` or ``T | None``."""
    while get_origin(annotation) in (list, tuple, Union, UnionType, Annotated):
        inner = [a for a in get_args(annotation) if a is not type(None) and a is not Ellipsis]
        annotation = next((a for a in inner if _field_types(a)), inner[0])
    return annotation
