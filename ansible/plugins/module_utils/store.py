"""Runs the command `appliance` on a host, and reads its results."""

from __future__ import annotations

import json
import re

COMMAND = "/usr/local/bin/appliance"
INPUTS_CHANGED = "--inputs-changed"
"""The option without which a version with other inputs, outputs or labels is refused; its error names it."""
REFUSED = 3
"""Exit code: refused, for the bundle's signature, its proof or its self-test."""


class Failed(Exception):
    """The command ended with another exit code than 0."""

    def __init__(self, line, code, text):
        """Keep the command's line, its exit code and what it wrote to standard error."""
        self.code = code
        self.refused = code == REFUSED
        super().__init__("{}: exit code {}: {}".format(" ".join(line), code, told(text)))


def told(text):
    """Return the three parts of an error (tried, found, next) as one line."""
    said = [line for line in text.strip().splitlines() if not line.startswith('{"progress"')]
    lines = [re.sub("^(error|found|next): *", "", line).strip() for line in said]
    return "; ".join(line for line in lines if line) or "it said nothing"


def ask(run, command, *words):
    """Return what `command WORDS --json` prints; `run` is AnsibleModule.run_command. Raises Failed."""
    line = [command, *words, "--json"]
    code, out, err = run(line)
    if code:
        raise Failed(line, code, err or out)
    try:
        return json.loads(out)
    except ValueError:
        raise Failed(line, code, f"it printed no JSON: {out[:200]}") from None


def change(run, command, words, why, back):
    """Run the command that changes a model; `back` is whether it returns to an earlier version. Raises Failed.

    Whoever goes back to a version that has other inputs means it. A program before 1.0.0 does not know the option, and
    does not ask for it either.
    """
    line = [*words, "--why", why]
    try:
        ask(run, command, *line)
    except Failed as error:
        if not back or not error.refused or INPUTS_CHANGED not in str(error):
            raise
        ask(run, command, *line, INPUTS_CHANGED)


def record_of(listed, name):
    """Return what `appliance models --json` says of one model, with the same keys where it is not installed."""
    absent = {"name": name, "versions": [], "active": None, "state": None, "previous": None, "since": None}
    found = [model for model in listed["models"] if model["name"] == name]
    return dict(absent, **found[0]) if found else absent


def plan(record, state, version):
    """Return (the command's words that bring a model into a state, the record afterwards); ((), record) if none.

    `state` is installed, active, canary, good, back or inactive; `version` is the one meant, "" for whichever: see the
    module `model`.
    """
    after = dict(record)
    if state == "installed":
        if version in record["versions"]:
            return (), after
        return ("install",), dict(after, versions=sorted([*record["versions"], version]))
    if state == "good":
        # Of a version that is not active yet, check mode is asked: by then it will be, on probation.
        if record["state"] == "good" and version in ("", record["active"]):
            return (), after
        return ("mark-good", record["name"]), dict(after, state="good")
    if state == "inactive":
        if record["active"] is None:
            return (), after
        return ("deactivate", record["name"]), dict(after, active=None, previous=record["active"], state="probation")
    running = record.get("experiment")
    if state == "back" and running and version in ("", record["active"]):
        return ("abort", record["name"]), dict(after, experiment=None)
    if record["active"] == version and version:
        return (), after
    if state == "canary" and record["active"] is not None:
        if running and running["kind"] == "canary" and version in [arm["version"] for arm in running["arms"]]:
            return (), after
        return ("canary", record["name"], version), after
    if state == "back" and version in ("", record["previous"]):
        return ("rollback", record["name"]), dict(after, active=record["previous"], previous=None)
    return ("activate", record["name"], version), dict(after, active=version, state="probation")


def verdict(told, version):
    """Return (whether a canary of `version` has ended, why it did not become active, "" where it did).

    `told` is what `appliance experiment NAME --json` prints.
    """
    if told["running"]:
        found = (told.get("evidence") or {}).get("verdict") or {}
        return False, found.get("text") or f"{told['kind']} {told['id']} still runs"
    last = told.get("last") or {}
    if last.get("outcome") == "promoted" and last.get("version") == version:
        return True, ""
    return True, f"its canary was {last.get('outcome') or 'ended'}: {last.get('why') or 'no reason is on record'}"
