"""A table of a TOML file into a frozen dataclass, with errors that say the file, the key and what would be right."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any


class ConfigError(Exception):
    """A setting that cannot be used: says the file, the key, what is wrong and what would be right."""


T = typing.TypeVar("T")


def read_table(kind: type[T], table: dict[str, Any], *, file: Path, prefix: str = "") -> T:
    """Fill the dataclass `kind` from a TOML table; unknown keys are refused with the nearest known one.

    Numbers are above 0; 0 itself is taken where it is the default. `prefix` stands before the keys in messages,
    as "log.". Raises ConfigError.
    """
    hints = typing.get_type_hints(kind)
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}  # type: ignore[arg-type]  # it is a dataclass
    names = list(fields)
    for name in table:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            remedy = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(names)}"
            raise ConfigError(f"{file}: {prefix}{name}: unknown key; {remedy}")
    for name, entry in fields.items():
        needed = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if needed and name not in table:
            raise ConfigError(f"{file}: {prefix}{name}: missing; it has no default")
    read = {name: _value(hints[name], table[name], file=file, key=prefix + name) for name in table}
    for name, value in read.items():
        _check_number(value, zero=fields[name].default == 0, file=file, key=prefix + name)
    return kind(**read)


def _check_number(value: Any, *, zero: bool, file: Path, key: str) -> None:
    if type(value) not in {int, float} or 0 < value < math.inf or (zero and value == 0):
        return
    least = "0 or above" if zero else "above 0"
    raise ConfigError(f"{file}: {key}: found {value!r}, wanted {_SAID[type(value)]} {least}")


def _value(wanted: Any, value: Any, *, file: Path, key: str) -> Any:
    """Check one value against the type its field declares."""
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{file}: {key}: found {value!r}, wanted a table [{key}]")
        return read_table(wanted, value, file=file, prefix=f"{key}.")
    if typing.get_origin(wanted) is Mapping:
        if not isinstance(value, dict) or not all(isinstance(word, str) for word in value.values()):
            raise ConfigError(f"{file}: {key}: found {value!r}, wanted a table of strings")
        return value
    if typing.get_origin(wanted) is types.UnionType:  # X | None: TOML has no null, so that it is an X
        return _value(typing.get_args(wanted)[0], value, file=file, key=key)
    if typing.get_origin(wanted) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{file}: {key}: found {value!r}, wanted a list")
        element = typing.get_args(wanted)[0]
        return tuple(_value(element, entry, file=file, key=f"{key}[{i}]") for i, entry in enumerate(value))
    if isinstance(wanted, type) and issubclass(wanted, StrEnum):
        if value not in list(wanted):
            raise ConfigError(f"{file}: {key}: found {value!r}, wanted one of {', '.join(wanted)}")
        return wanted(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted:
        raise ConfigError(f"{file}: {key}: found {value!r}, wanted {_SAID[wanted]}")
    return value


_SAID = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
