"""The state of a fleet: an entry for each host, from its readings or a receipt that it sent, and a table for people."""

from __future__ import annotations

import json
from pathlib import Path

COLUMNS = ("host", "reachable", "program", "ready", "model", "version", "state", "since", "self-test", "disk")
MEBIBYTE = 1024 * 1024


class FilterModule:
    """The filters of this file, for Ansible."""

    def filters(self):
        """Return them by name."""
        return {"fleet_entries": entries, "fleet_receipts": receipts, "fleet_merge": merged, "fleet_table": table}


def entries(looked_at):
    """Return an entry for each host that was asked; `looked_at` is {host: its readings, None where it fell silent}."""
    return [entry(host, readings) for host, readings in looked_at.items()]


def entry(host, readings):
    """Return the entry of a host that was asked; `readings` is None where it could not be reached."""
    if not readings:
        return {"host": host, "reachable": False, "program": "", "ready": False, "models": []}
    return {**_of_status(host, readings["status"]), "reachable": True, "ready": readings["ready"]}


def receipts(files):
    """Return an entry for each `appliance status --json` file that an offline site has sent, by the host it names."""
    return [_receipt(Path(file)) for file in sorted(files)]


def merged(asked, sent):
    """Return all entries by host; a host that answered itself is not told from its receipt.

    A receipt of a host that the inventory does not know speaks for the one that its file is named after, if there is
    one: an inventory may call a host otherwise than it calls itself. Of several the last counts.
    """
    known = {one["host"] for one in asked}
    answered = {one["host"] for one in asked if one["reachable"]}
    named = [{**one, "host": _meant(one, known)} for one in sent]
    by_receipt = {one["host"]: one for one in named if one["host"] not in answered}
    rest = [one for one in asked if one["host"] not in by_receipt]
    return sorted([*rest, *by_receipt.values()], key=lambda one: one["host"])


def _meant(receipt, known):
    """Return the name of the host that a receipt speaks for."""
    stem = Path(receipt["receipt"]).stem
    return stem if receipt["host"] not in known and stem in known else receipt["host"]


def table(hosts):
    """Return the hosts' entries as lines for a person, columns aligned."""
    rows = [COLUMNS, *([_plain(text) for text in row] for one in hosts for row in _rows(one))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _plain(text):
    """Return a host's text with what a terminal would obey, or not show, as its number: ESC as \\x1b."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _of_status(host, status):
    """Return the part of an entry that `appliance status` gives."""
    kept = ("name", "active", "previous", "state", "since", "versions", "why", "self_test", "experiment", "probation",
            "drift", "quality", "problem")  # fmt: skip
    models = [{key: model.get(key) for key in kept} for model in status.get("models", [])]
    program = status.get("appliance", "")
    # The heads of the prediction log: kept here, away from the host, they pin what it has written so far.
    return {"host": host, "program": program, "models": models, "disk_free_bytes": status.get("disk_free_bytes"),
            "log": status.get("log", []), "seen": status.get("time", "")}  # fmt: skip


def _receipt(file):
    """Return the entry of one receipt. Raises ValueError for a file that is none."""
    try:
        status = json.loads(file.read_text(encoding="utf-8"))
        entry_ = _of_status(str(status["host"]), status)
        service = status["service"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not what `appliance status --json` wrote: {error!r}") from error
    return {**entry_, "reachable": "receipt", "ready": bool(service.get("ready")), "receipt": file.name}


def _rows(one):
    """Return the table's rows of a host: one for each model, one without any."""
    free = one.get("disk_free_bytes")
    reachable = {True: "yes", False: "no"}.get(one["reachable"], "receipt")
    ready = "-" if reachable == "no" else "yes" if one["ready"] else "no"
    first = (one["host"], reachable, one["program"] or "-", ready)
    disk = "-" if free is None else f"{free // MEBIBYTE} MiB"
    models = one["models"] or [{}]
    return [(*first, *_model(model), disk) for model in models]


def _model(model):
    """Return a model's cells."""
    tested = (model.get("self_test") or {}).get("when")
    return tuple(str(value or "-") for value in (model.get("name"), model.get("active"), model.get("state"),
                                                 model.get("since"), tested))  # fmt: skip
