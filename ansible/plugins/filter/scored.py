"""What the hosts have scored, put together: whether every part is there, of one kind, and what all of it sums up to."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

PART = re.compile(r"part-([1-9][0-9]*)-of-([1-9][0-9]*)\.")
ALIKE = {"bundle": "the version of the model", "inputs": "the input files"}


class FilterModule:
    """The filters of this file, for Ansible."""

    def filters(self):
        """Return them by name."""
        return {"score_there": there, "score_strange": strange, "score_account": account, "score_allowance": allowance}


def strange(folder, of):
    """Return the names of the parts in a folder that are none of so many: joined with these they would be too much."""
    return [file.name for file in _parts(folder) if int(PART.match(file.name)[2]) != int(of)]


def there(folder, part, of):
    """Return {name: SHA-256} of the files of one part in the controller's folder."""
    return {file.name: digest(file) for file in _parts(folder) if file.name.startswith(f"part-{part}-of-{of}.")}


def digest(file):
    """Return a file's SHA-256."""
    with Path(file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def allowance(text):
    """Return (number, whether it is a percentage) of what `--max-bad` takes. Raises ValueError."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(%?)", str(text).strip())
    if not found or (found[2] and float(found[1]) > 100):
        raise ValueError(f'{text!r} is neither a number of rows nor a percentage such as "0.1%"')
    return float(found[1]), bool(found[2])


def account(parts, faults, folder, max_bad="0", rows=-1):
    """Return what was scored: {whole, faults, model, version, bundle, rows, bad, inputs, parts}.

    `parts` and `faults` are {host: what its part said, None}, {host: why it has none}, hosts in the order of their
    parts; `rows` is how many there should be, -1 where that is not known. The files are read as they are in `folder`.
    """
    hosts = list(parts)
    found = [_entry(number, host, parts[host], Path(folder)) for number, host in enumerate(hosts, 1) if parts[host]]
    wrong = [_missing(number, host, len(hosts), faults.get(host)) for number, host in enumerate(hosts, 1)
             if not parts[host]]  # fmt: skip
    wrong += [f"{one['host']}: {one.pop('fault')}" for one in found if one["fault"]]
    for one in found:
        one.pop("fault", None)
    told = [said for said in parts.values() if said]
    wrong += _unlike(parts)
    bad, total = sum(one["bad"] for one in found), sum(one["rows"] for one in found)
    if not wrong:
        wrong += _not_as_meant(total, bad, int(rows), max_bad)
    first = told[0] if told else {}
    return {
        "whole": not wrong,
        "faults": wrong,
        **{name: first.get(name) for name in ("model", "version", "bundle", "inputs")},
        "rows": total,
        "bad": bad,
        "parts": found,
    }


def _entry(number, host, said, folder):
    """Return what is told of one part; `fault` says what is wrong with it, "" for nothing."""
    output = Path(said["output"]["name"]).name
    rejected = next((name for name in said["files"] if name != output), None)
    return {
        "part": number,
        "host": host,
        "file": output,
        "rows": said["rows"],
        "bad": said["bad"],
        "bytes": said["output"]["bytes"],
        "sha256": said["output"]["sha256"],
        "rejected": rejected,
        "seconds": said["seconds"],
        "fault": _fault(said, folder, rejected),
    }


def _fault(said, folder, rejected):
    """Return what is wrong with a part's files in the controller's folder, "" for nothing."""
    for name, expected in said["files"].items():
        file = folder / name
        if not file.is_file():
            return f"{name} was not gathered"
        if digest(file) != expected:
            return f"{name} is not what the host scored: the SHA-256 differs"
    lines = _lines(folder / rejected) if rejected else 0
    return "" if lines == said["bad"] else f"{said['bad']} rows are bad, and {lines} are in {rejected or 'no file'}"


def _lines(file):
    """Return how many lines a file has."""
    with file.open("rb") as opened:
        return sum(1 for _ in opened)


def _missing(number, host, of, fault):
    """Return the sentence on a part that is not there."""
    return f"{host}: part {number} of {of} is missing: {fault or 'the host cannot be reached'}"


def _unlike(parts):
    """Return what keeps parts from being of one run: another version, other files."""
    found = []
    for name, meant in ALIKE.items():
        by_value = {}
        for host, said in parts.items():
            if said:
                value = [one["sha256"] for one in said[name]] if name == "inputs" else said[name]
                by_value.setdefault(str(value), []).append(host)
        if len(by_value) > 1:
            found.append(f"{meant} differ: " + " | ".join(", ".join(hosts) for hosts in by_value.values()))
    return found


def _not_as_meant(total, bad, rows, max_bad):
    """Return what is wrong with the sums."""
    number, is_share = allowance(max_bad)
    most = total * number / 100 if is_share else number
    found = [f"{bad} of {total} rows are bad, {max_bad} may be"] if bad > most else []
    return found + ([f"the parts have {total} rows, stated are {rows}"] if rows not in (-1, total) else [])


def _parts(folder):
    """Return the files of parts in a folder, by name."""
    here = Path(folder)
    return sorted(file for file in here.iterdir() if PART.match(file.name)) if here.is_dir() else []
