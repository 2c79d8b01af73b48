"""Writes the tables of docs/configuration.md from appliance/config/: `make settings-docs`.

A setting's meaning is the text below it there, a section's title and preface are its class's. The prose before and
after the tables is the page's own.
"""

import ast
import inspect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec

from appliance import config, settings

PAGE = Path(__file__).parent / "configuration.md"
BEGIN = "<!-- Written by `make settings-docs` from appliance/config/, up to the mark of the end. -->"
END = "<!-- The end of what `make settings-docs` writes. -->"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def page(text: str) -> str:
    """Return the page `text` with its tables made again."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([before + BEGIN, *_section(config.Config, "", False), "", END]) + after


def _section(kind: Any, name: str, is_list: bool) -> Iterator[str]:
    """Yield the lines on a section, then those on the tables within it, then those on the lists of tables."""
    fields = msgspec.structs.fields(kind)
    tables = [field for field in fields if _is_table(field.type)]
    lists = [field for field in fields if _is_table((get_args(field.type) or (None,))[0])]
    texts = _texts(kind)
    if name:
        title, _, preface = inspect.cleandoc(kind.__doc__).partition("\n\n")
        head = "| Key | Default | Meaning |" if is_list else "| Key | Default | Variable | Meaning |"
        yield from ("", f"## {title.rstrip('.')}", "", *([_linked(preface), ""] if preface else []))
        yield from (head, re.sub(r"[^|]+", "---", head))
        for field in fields:
            if field not in tables and field not in lists:
                cells = [f"`{field.name}`", f"`{_default(field)}`"]
                cells += [] if is_list else [f"`{settings.variable_of(name, field.name)}`"]
                yield f"| {' | '.join([*cells, texts[field.name]])} |"
    inner = f"{name}." if name else ""
    for field in tables:
        yield from _section(field.type, f"{inner}{field.name}", False)
    for field in lists:
        yield from _section(get_args(field.type)[0], f"{inner}{field.name}", True)


def _texts(kind: type) -> dict[str, str]:
    """Return {field: the text below it in the code} of a class and of those that it extends."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if issubclass(one, config.Section):
            body = ast.parse(inspect.getsource(one)).body[0].body
            for field, text in itertools.pairwise(body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    found[field.target.id] = _linked(" ".join(text.value.value.split()))
    return found


def _linked(text: str) -> str:
    """Return a text with the names of pages as links."""
    return re.sub(r"docs/((?:how-to/)?[\w-]+\.md)(#[\w-]+)?", r"[\1](\1\2)", text)


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, config.Section)


def _default(field: msgspec.structs.FieldInfo) -> str:
    """Return a field's default as JSON."""
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return msgspec.json.encode(value).decode()


if __name__ == "__main__":
    main()
