"""docs/limits.md: each limit that has a setting is there, with the default that the code has."""

import re
from pathlib import Path

import pytest

from appliance.batch import arrow_files, blocks
from appliance.bundle import baseline, members
from appliance.config import Config
from appliance.monitoring import drift_tables, exposition, watch
from appliance.mqtt import answering, discovery, rows, sparkplug
from appliance.openinference import tensors
from appliance.pull import offers, transfer
from appliance.rest import together
from appliance.rest.server import channel, group, request_head
from appliance.store import routing_record

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


@pytest.mark.parametrize(
    ("row", "numbers"),
    [
        ("Members; table of the zip", (members.MAX_MEMBERS, f"{members.MAX_TABLE_BYTES // 1024} KiB")),
        (
            "`manifest.json`",
            tuple(f"{size // MIB} MiB" for size in (members.MAX_MANIFEST_BYTES, members.MAX_JSON_BYTES)),
        ),
        ("Head", (f"{request_head.LONGEST_HEAD // 1024} KiB", request_head.MOST_FIELDS)),
        ("Requests read ahead", (channel.MOST_PIPELINED,)),
        ("Dimensions of a tensor", (tensors.MAX_RANK,)),
        (
            "Small requests that share a run",
            (together.MOST_REQUESTS, together.MOST_ROWS, f"{group.SMALL_BODY // 1024} KiB"),
        ),
        ("An answer", (f"{answering.LARGEST_ANSWER // MIB} MiB", answering.MOST_VALUES)),
        ("Id, echoed fields", (f"{answering.LONGEST_CORRELATION // 1024} KiB", rows.LONGEST_VALUE)),
        ("Sparkplug B", (sparkplug.MOST_DEVICES, sparkplug.MOST_METRICS)),
        ("Topics told to Home Assistant", (discovery._MOST,)),
        ("One line of text", (f"{blocks.LONGEST_RECORD // MIB} MiB",)),
        ("A row group of Parquet", (f"{arrow_files.MOST_GROUP_BYTES // MIB} MiB",)),
        ("Columns watched", (drift_tables.MOST_COLUMNS, exposition.MOST_COLUMNS)),
        ("Categories kept of training", (baseline.MOST_CATEGORIES,)),
        ("Rows counted", (watch.ROWS_A_SECOND, watch.CHUNK)),
        ("Experiments of a model", (routing_record.MOST_ARMS,)),
        (
            "Index; bundles in it",
            (f"{offers.MAX_DOCUMENT_BYTES // MIB} MiB", offers.MAX_OFFERS, transfer.MAX_REDIRECTS),
        ),
    ],
)
def test_a_limit_without_a_setting_is_the_codes(row, numbers):
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {row}")]
    for number in numbers:
        written = f"{number:,}" if isinstance(number, int) else number
        assert re.search(rf"(?<![\d,]){re.escape(written)}(?![\d,]*\d)", line), written
