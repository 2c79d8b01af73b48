"""The state of a fleet as one HTML page that needs no server: data, style and script are in it, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "playbooks" / "files" / "fleet-page"


class FilterModule:
    """The filters of this file, for Ansible."""

    def filters(self):
        """Return them by name."""
        return {"fleet_page": page}


def page(hosts, made=None):
    """Return the page of the hosts' entries (see fleet.py), made at the time `made` (UTC, ISO 8601), now by default.

    What hosts say is data for the script, which writes it as text alone. The policy in the page lets the browser run
    and apply what stands in it, by its digest, and ask nobody for anything.
    """
    made = made or datetime.now(UTC).isoformat(timespec="seconds")
    style, script = (_read(name) for name in ("page.css", "page.js"))
    policy = f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
    policy += "base-uri 'none'; form-action 'none'"
    parts = {
        "{policy}": policy,
        "{style}": style,
        "{script}": script,
        "{data}": _data({"made": made, "hosts": hosts}),
    }
    text = _read("page.html")
    for place, part in parts.items():
        before, _, after = text.partition(place)
        text = before + part + after
    return text


def _read(name):
    """Return one of the page's files."""
    return (FOLDER / name).read_text(encoding="utf-8")


def _digest(text):
    """Return the digest by which a policy names what stands in the page (Content Security Policy 3, hash-source)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(value):
    """Return a value as JSON that no text in it can end: a script element ends at `</`, whatever stands around it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
