"""What is wrong with a setting, in the words of the configuration: where it is, what may be there, what was meant.

msgspec says "Object contains unknown field `tpoic` - at `$.mqtt.subscriptions[0]`"; this says of which table that is,
which setting comes close, and which values one may have. Pure.
"""

import difflib
import re
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from appliance.config import Section

_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_UNKNOWN = re.compile(r"unknown field `(.+)`")


def explained(message: str, kind: type) -> tuple[str, str]:
    """Return (found, next step) for msgspec's message about a document of `kind`."""
    matched = _PLACE.match(message)
    what, path = (matched["what"], matched["path"] or "") if matched else (message, "")
    steps = [name or int(index) if (name or index != "...") else "" for name, index in _STEP.findall(path)]
    place, held = _followed(kind, steps)
    next_step = "correct it; see docs/configuration.md"
    if unknown := _UNKNOWN.search(what):
        names = [field.name for field in msgspec.structs.fields(held)] if _is_section(held) else []
        close = difflib.get_close_matches(unknown[1], names, 1, 0.5)
        known = f"known are {', '.join(names)}" if names else next_step
        return f"{place} has no setting `{unknown[1]}`", f"did you mean `{close[0]}`?" if close else known
    allowed = _literals(held)
    if allowed and "enum value" in what:
        given = re.search(r"'(.*)'", what, re.DOTALL)
        close = difflib.get_close_matches(given[1] if given else "", allowed, 1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        return f"{place}: {what[0].lower()}{what[1:]}", f"{meant}allowed are {', '.join(map(repr, allowed))}"
    return f"{place}: {what}", next_step


def _followed(kind: Any, steps: list[str | int]) -> tuple[str, Any]:
    """Return how a place is written in TOML, and the type of what stands there."""
    table: list[str] = []
    listed, key, number = False, "", 0
    for step in steps:
        if isinstance(step, int):
            kind = _element(kind)
            if _is_section(kind):
                listed, number = True, step
        elif step and _is_section(kind):
            field = next((one for one in msgspec.structs.fields(kind) if one.name == step), None)
            kind = field.type if field else Any
            if _is_section(kind) or _is_section(_element(kind)):
                table.append(step)
                listed = False
            else:
                key = step
        else:  # a key or a value of a table with free keys
            kind = _value(kind)
    brackets = ("[[", "]]") if listed else ("[", "]")
    named = f"{brackets[0]}{'.'.join(table)}{brackets[1]}" if table else "the configuration"
    if key and not listed:
        return ".".join((*table, key)), kind
    which = f" number {number + 1}" if listed else ""
    return " ".join(filter(None, (f"{named}{which}", key))), kind


def _plain(kind: Any) -> Any:
    """Return a type without what is annotated."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _element(kind: Any) -> Any:
    """Return the type of the elements of a list, Any for what is none."""
    found = [one for one in _choices(kind) if get_origin(one) in (tuple, list)]
    return _plain(get_args(found[0])[0]) if found else Any


def _value(kind: Any) -> Any:
    """Return the type of the values of a table with free keys, Any for what is none."""
    found = [one for one in _choices(kind) if get_origin(one) is dict]
    return _plain(get_args(found[0])[1]) if found else Any


def _choices(kind: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the one."""
    kind = _plain(kind)
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _is_section(kind: Any) -> bool:
    """Return whether a type is a table's."""
    return isinstance(kind, type) and issubclass(kind, Section)


def _literals(kind: Any) -> list[str]:
    """Return the values that a type allows, [] where it does not list them."""
    return [str(value) for one in _choices(kind) if get_origin(one) is Literal for value in get_args(one)]
