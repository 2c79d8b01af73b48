"""Writes TOML, so that a dictionary in the inventory becomes the appliance's configuration file."""

from __future__ import annotations

import json
import math
import re

DOCUMENTATION = r"""
name: to_toml
short_description: Write a dictionary as TOML
version_added: "1.0.0"
author:
  - The Inference Appliance authors
description:
  - Writes a dictionary as TOML v1.0. Dictionaries become tables, lists of dictionaries lists of tables.
options:
  _input:
    description: The dictionary, of text, numbers, booleans, lists of these, dictionaries and lists of dictionaries.
    type: dict
    required: true
"""

EXAMPLES = r"""
# "[http]\nport = 8080\n"
text: "{{ {'http': {'port': 8080}} | inference.appliance.to_toml }}"
"""

RETURN = r"""
_value:
  description: The text.
  type: str
"""

_BARE = re.compile(r"[A-Za-z0-9_-]+")


class FilterModule:
    """The filters of this file, for Ansible."""

    def filters(self):
        """Return them by name."""
        return {"to_toml": to_toml}


def to_toml(document):
    """Return a dictionary as TOML v1.0."""
    return "\n".join(_table(document, ())).strip("\n") + "\n"


def _table(table, path):
    """Return the lines of a table: its own values first, then the tables within."""
    lines = [f"{_key(key)} = {_value(value, (*path, key))}" for key, value in table.items() if not _nests(value)]
    for key, value in table.items():
        name = ".".join(_key(part) for part in (*path, key))
        if isinstance(value, dict):
            lines += ["", f"[{name}]", *_table(value, (*path, key))]
        elif _nests(value):
            for one in value:
                lines += ["", f"[[{name}]]", *_table(one, (*path, key))]
    return lines


def _nests(value):
    """Return whether a value is a table or a list of tables."""
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _value(value, path):
    """Return a value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else str(float(value))
    if isinstance(value, str):
        # JSON's escapes are TOML's; only DEL is allowed in the one and not in the other.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return "[{}]".format(", ".join(_value(one, path) for one in value))
    raise ValueError("{} is {!r}, which TOML cannot say".format(".".join(map(str, path)), value))


def _key(key):
    """Return a key, in quotes where it needs them."""
    return str(key) if _BARE.fullmatch(str(key)) else _value(str(key), (key,))
