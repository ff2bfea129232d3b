"""Plain values from YAML, JSON or a checkpoint → checked dataclasses.

An error names the key, what was expected and what was found. An unknown key is an error that suggests the nearest known
one: a misspelt option must not silently train the default.
"""

import difflib
import math
import sys
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from common.errors import UserError


def require(holds: bool, name: str, expected: str, found: object) -> None:
    """Raise UserError about the value of `name` unless the condition `holds`."""
    if not holds:
        raise UserError(f"bad value of '{name}'", expected, found)


def parse(schema: type, values: Any, where: str = "") -> Any:
    """Build the dataclass `schema` from a mapping.

    where: prefix of the keys in errors, such as "optim_config.". Raises UserError on an unknown or missing key and on a
    value of the wrong type.
    """
    if not isinstance(values, dict):
        raise UserError(f"bad value of '{where.rstrip('.') or 'the file'}'", "a mapping of keys", _show(values))
    known = [f.name for f in fields(schema)]
    for key in values:
        if key not in known:
            found = str(key) if len(str(key)) <= 60 else f"{str(key)[:59]}…"
            near = difflib.get_close_matches(found, known, n=1, cutoff=0.5)
            expected = f"'{where}{near[0]}'" if near else f"one of {', '.join(known)}"
            raise UserError("unknown key", expected, f"'{where}{found}'")
    for f in fields(schema):
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise UserError("missing key", f"'{where}{f.name}'", "none")
    hints = get_type_hints(schema)
    return schema(**{key: _convert(hints[key], value, f"{where}{key}") for key, value in values.items()})


def is_plain(value: Any) -> bool:
    """Whether it is text, a number, a boolean, None, or a list or dict of such."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


def _convert(hint: Any, value: Any, name: str) -> Any:
    """`value` as the type `hint`, or UserError. "True" and "False", as in the official files, become booleans."""
    origin, args = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return parse(hint, value, f"{name}.")
    if origin in (Union, types.UnionType):
        return None if value is None else _convert(next(a for a in args if a is not type(None)), value, name)
    if origin is Literal:
        value = "off" if value is False and "off" in args else value  # YAML 1.1 reads `off` as false
        require(value in args, name, f"one of {', '.join(map(str, args))}", _show(value))
        return value
    if origin is tuple:
        many = args[-1] is Ellipsis
        value = [value] if many and isinstance(value, str) else value
        fits = isinstance(value, list | tuple) and (many or len(value) == len(args))
        require(fits, name, "a list" if many else f"a list of {len(args)} values", _show(value))
        return tuple(_convert(args[0] if many else args[i], v, f"{name}[{i}]") for i, v in enumerate(value))
    if hint is bool and value in ("True", "False"):
        return value == "True"
    if hint is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    right = type(value) is hint and not (hint is float and not math.isfinite(value))
    require(right, name, f"a {_TYPE_NAMES.get(hint, hint.__name__)}", _show(value))
    return value


_TYPE_NAMES = {bool: "boolean", int: "whole number", float: "number", str: "string", dict: "mapping of keys"}


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
