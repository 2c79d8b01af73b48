"""docs/limits.md: each limit that has a setting is there, with the default that the code has."""

import re
from pathlib import Path

import pytest

from appliance.config import Config

PAGE = (Path(__file__).parents[2] / "docs/limits.md").read_text(encoding="utf-8")
CONFIG = Config()
MIB = 1024 * 1024


def shown(key: str, value: float) -> str:
    """Return a number as the page writes it."""
    if key.endswith("bytes"):
        return f"{value / MIB:g} MiB" if value % MIB == 0 and value < 1024 * MIB else f"{value / 1024:g} KiB"
    return f"{value:,.0f}"


def limits() -> list[tuple[str, str, float]]:
    """Return section, key and default of each `max_*` that has a number."""
    found = []
    for section in ("http", "mqtt"):
        for key in getattr(CONFIG, section).__struct_fields__:
            value = getattr(getattr(CONFIG, section), key)
            if key.startswith("max_") and value:
                found.append((section, key, value))
    return found


@pytest.mark.parametrize(("section", "key", "value"), limits())
def test_a_limit_of_requests_and_messages_is_told_with_its_default(section, key, value):
    (part,) = re.findall(rf"^## {section.upper()}\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    rows = [line for line in part.splitlines() if line.startswith("|") and f"`{key}`" in line]
    assert len(rows) == 1
    assert shown(key, value) in rows[0]


def test_every_other_limit_that_can_be_set_is_named():
    sections = ("store", "models", "pull")
    keys = [
        key for name in sections for key in getattr(CONFIG, name).__struct_fields__ if re.match(r"max_|.*deadline", key)
    ]
    assert len(keys) >= 4
    assert [key for key in keys if f"{key}`" not in PAGE] == []
