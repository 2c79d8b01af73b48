"""The commands on the prediction log: verify, prove, erase, export, head, tail, init."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec

from appliance.cli import as_json, common_options, options, why
from appliance.cli.output import echo, echo_json, print_json
from appliance.errors import Misuse, NotFound, Refused
from appliance.monitoring.prediction_log import export as exporting
from appliance.monitoring.prediction_log import find, sealing, segments
from appliance.monitoring.prediction_log.export import Period
from appliance.monitoring.prediction_log.verify import Checked
from appliance.monitoring.prediction_log.verify import verify as verify_writer

_SHORT = {"d": "days", "h": "hours", "m": "minutes"}

since = click.option(
    "--since", help="Start of the period: 2026-10-01, 2026-10-01T08:00Z, or 7d (that long ago).", metavar="TIME"
)
until = click.option("--until", help="Until then.", metavar="TIME")
only_version = click.option("--version", "version", help="Of this version alone.", metavar="V")


@click.group("log")
def log() -> None:
    """Read, check and prove the log of predictions that [log.predictions] keeps."""


@log.command()
@click.argument("name")
@click.option("--seal-key", type=click.Path(path_type=Path), help="File with the key that `init --seal` showed.")
@click.option("--head", "heads", multiple=True, help="A chain that was kept elsewhere and must be in the log.")
@as_json
@common_options
def verify(name: str, seal_key: Path | None, heads: tuple[str, ...], as_json: bool) -> None:
    """Check the log of the model NAME: no byte changed, no line or segment missing. Exit code 3 where one is."""
    key = _read_key(seal_key) if seal_key else None
    state_dir = options().config().state_dir
    checked = [verify_writer(writer, key=key) for writer in segments.known_writers(state_dir, name)]
    problems = [problem for one in checked for problem in one.problems]
    there = set().union(*(one.chains for one in checked))
    problems += [
        f"head {one[:16]}... is not in the log: it was rewritten, or cut off" for one in heads if one not in there
    ]
    if as_json:
        print_json(
            {"model": name, "sound": not problems, "problems": problems, "writers": [one.as_dict() for one in checked]}
        )
    else:
        echo(*(_line(name, one) for one in checked), *(f"  problem: {problem}" for problem in problems))
    if problems:
        raise Refused(
            f"verify the log of {name}", f"{len(problems)} problems", "keep the folder as it is, and ask who had access"
        )


@log.command()
@click.argument("name")
@click.argument("identifier", required=False)
@click.option("--check", type=click.Path(path_type=Path), help="Check this proof instead of making one.")
@common_options
def prove(name: str, identifier: str | None, check: Path | None) -> None:
    """Print the proof (JSON) that the prediction IDENTIFIER is in the log of NAME, or check one with --check.

    A check of it needs no other prediction. Its `chain` is part of the chain of every later `log head`.
    """
    if check:
        found = find.check_proof(_read_json(check))
        if found:
            raise Refused(f"check {check}", found, "ask for the proof again")
        echo("the proof holds: its line was in the log when its chain was sealed")
        return
    if not identifier:
        raise Misuse("prove", "no prediction is named", "appliance log prove NAME ID")
    print_json(find.prove(options().config().state_dir, name, identifier))


@log.command()
@click.argument("name")
@click.argument("identifiers", nargs=-1, required=True)
@why
@as_json
@common_options
def erase(name: str, identifiers: tuple[str, ...], why: str, as_json: bool) -> None:
    """Erase the predictions IDENTIFIERS and their labels from the log of NAME. The rest can still be verified."""
    count = find.erase(options().config().state_dir, name, identifiers, why)
    if as_json:
        print_json({"model": name, "erased": count, "changed": count > 0})
    else:
        echo(f"{count} lines erased")


@log.command()
@click.argument("name")
@only_version
@since
@until
@click.option("--with-labels", is_flag=True, help="Add each row's label (_label), null where it has none.")
@click.option("-o", "output", type=click.Path(path_type=Path), help="FILE.jsonl or FILE.parquet; else standard output.")
@common_options
def export(
    name: str, version: str | None, since: str | None, until: str | None, with_labels: bool, output: Path | None
) -> None:
    """Write the rows of NAME with their answers as a table.

    Columns are as they were sent; names that the appliance adds begin with _.
    """
    period = period_of(since, until)
    state_dir = options().config().state_dir
    segments.known_writers(state_dir, name, version)
    rows = exporting.table(state_dir, name, version, period, with_labels=with_labels)
    if output is None:
        for row in rows:
            echo_json(msgspec.json.encode(row), indent=-1)
        return
    echo(f"{exporting.write(rows, output)} rows written to {output}")


@log.command()
@click.argument("name", required=False)
@as_json
@common_options
def head(name: str | None, as_json: bool) -> None:
    """Show where the chains end: with a copy kept elsewhere, every later change of older lines is found."""
    found = [one for one in segments.heads(options().config().state_dir) if name in (None, one["model"])]
    if name and not found:
        raise NotFound(f"show the head of {name}", "nothing of it is sealed", "see: appliance log tail")
    if as_json:
        print_json({"heads": found})
        return
    for one in found:
        echo("{model} {version} slot {slot}: segment {segment} seal {seal} chain {chain}".format(**one))


@log.command()
@click.argument("name")
@only_version
@click.option("-n", "count", type=click.IntRange(1, 100_000), default=10, help="How many lines.", show_default=True)
@common_options
def tail(name: str, version: str | None, count: int) -> None:
    """Show the last lines of the log of NAME as they are kept, seals left out."""
    found: list[tuple[float, int, bytes]] = []
    for writer in segments.known_writers(options().config().state_dir, name, version):
        own: list[tuple[float, int, bytes]] = []
        for segment in reversed(segments.of_writer(writer)):
            made = [(_time(line), place, line) for place, line in enumerate(find.lines_of(segment))]
            own = made[-count:] + own
            if len(own) >= count:
                break
        found += own[-count:]
    for _, _, line in sorted(found)[-count:]:
        echo_json(line, indent=-1)


@log.command()
@click.argument("name")
@click.option("--seal", is_flag=True, help="Make the key that seals the log, and show it once.")
@common_options
def init(name: str, seal: bool) -> None:
    """Prepare the log of NAME.

    With --seal, an attacker who takes over the host later cannot rewrite older lines unnoticed.
    """
    if not seal:
        raise Misuse("log init", "there is nothing to prepare", "say --seal; [log.predictions] begins a log")
    key = sealing.init(options().config().state_dir, name)
    echo(key)
    echo(
        "this key is shown once and is stored nowhere: keep it off this host, in a file for log verify --seal-key",
        "sealing begins with the next segment",
        err=True,
    )


def period_of(since: str | None, until: str | None) -> Period:
    """Return the period that two options name. Raises Misuse."""
    period = Period(_moment(since, float("-inf")), _moment(until, float("inf")))
    if period.since >= period.until:
        raise Misuse("choose the time", f"--since {since} is not before --until {until}", "exchange them")
    return period


def _moment(text: str | None, default: float) -> float:
    """Return a time as Unix time: ISO 8601 (UTC where it says no zone), or so long ago."""
    if text is None:
        return default
    if short := re.fullmatch(r"(\d{1,6})([dhm])", text):
        return (datetime.now(UTC) - timedelta(**{_SHORT[short[2]]: int(short[1])})).timestamp()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Misuse(f"read the time {text!r}", "it is none", "write 2026-10-01, 2026-10-01T08:00Z or 7d") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _line(name: str, checked: Checked) -> str:
    """Return what was found in one writer's segments."""
    said = f"{name} {checked.writer.version} slot {checked.writer.slot}: "
    said += "sound" if not checked.problems else f"{len(checked.problems)} problems"
    said += f", {checked.segments} segments, {checked.lines} lines sealed"
    for text, number in (
        ("not sealed yet", checked.unsealed),
        ("erased", checked.erased),
        ("rows lost and told", checked.gaps),
    ):
        said += f", {number} {text}" if number else ""
    return said + (f", head {checked.head}" if checked.head else "")


def _time(line: bytes) -> float:
    """Return when a line was written, as far as it says."""
    found = re.search(rb'"(?:t|since)":([0-9.e+]+)', line)
    return float(found[1]) if found else 0.0


def _read_key(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text(encoding="utf-8").strip())
    except (OSError, ValueError) as error:
        raise Misuse(f"read the sealing key {path}", str(error), "name a file with the 64 hex digits") from error
    if len(key) != 32:
        raise Misuse(f"read the sealing key {path}", "it is no key", "name a file with the 64 hex digits")
    return key


def _read_json(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError) as error:
        raise Misuse(f"read {path}", str(error), "name a file that log prove has made") from error
