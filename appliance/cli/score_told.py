"""What `appliance score` tells: how far a run is, and what it did."""

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from appliance.cli.output import echo, echo_json_line, print_json, show

if TYPE_CHECKING:
    from appliance.batch.local import Order, Outcome, Tally
    from appliance.cli.chosen_version import Chosen
    from appliance.drift_report import DriftReport

_LINE_SECONDS, _JSON_SECONDS = 0.5, 30.0  # between two lines of progress, on a terminal and in a pipe
_STDIN = "-"


class Progress:
    """Shows how far a run is: a line on a terminal, a JSON line each half minute in a pipe with --json."""

    def __init__(self, as_json: bool) -> None:
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not as_json
        self._json = as_json
        self._last = time.monotonic()
        self._shown = False

    def told(self, tally: "Tally") -> None:
        """Show it if it is time."""
        now = time.monotonic()
        if now - self._last < (_LINE_SECONDS if self._terminal else _JSON_SECONDS):
            return
        self._last = now
        document = _progress(tally)
        if self._terminal:
            self._shown = True
            show(_sentence(document))
        elif self._json:
            echo_json_line({"progress": document}, err=True)

    def end(self) -> None:
        """Leave the line."""
        if self._shown:
            echo("", err=True)


def tell(chosen: "Chosen", order: "Order", outcome: "Outcome", drift: "DriftReport | None", as_json: bool) -> None:
    """Tell what a run did, on standard output unless the answers are there."""
    if as_json:
        document = {**_document(chosen, order, outcome), **({"drift": drift.state} if drift else {})}
        echo_json_line(document, err=True) if order.output == _STDIN else print_json(document)
        return
    bad = f", {outcome.bad} bad" if outcome.bad else ""
    before = f", {outcome.resumed} of them before" if outcome.resumed else ""
    line = (
        f"{outcome.rows} rows{before}{bad}, {chosen.name} {chosen.version}, in {outcome.seconds:.1f} s: {order.output}"
    )
    echo(line, err=order.output == _STDIN)
    if drift:
        columns = ", ".join(one.column for one in drift.drifting()[:10])
        told = f"drift: {drift.state}" + (f" ({columns}); see: appliance drift {chosen.name}" if columns else "")
        echo(told, err=order.output == _STDIN)


def _document(chosen: "Chosen", order: "Order", outcome: "Outcome") -> dict[str, Any]:
    """Return what a run did for programs."""
    return {
        "model": chosen.name,
        "version": chosen.version,
        "bundle": chosen.digest,
        "rows": outcome.rows,
        "bad": outcome.bad,
        "resumed": outcome.resumed,
        "inputs": [{"name": name, "id": id, "sha256": digest} for name, id, digest in outcome.inputs],
        "output": {"name": order.output, "bytes": outcome.output.bytes, "sha256": outcome.output.sha256},
        "rejected": f"{order.output}.rejected.jsonl" if outcome.bad and order.output != _STDIN else None,
        "block_rows": outcome.block_rows,
        "seconds": round(outcome.seconds, 3),
        "first_row_seconds": outcome.first_row_seconds and round(outcome.first_row_seconds, 3),
    }


def _progress(tally: "Tally") -> dict[str, Any]:
    """Return how far a run is."""
    here = tally.rows - tally.resumed
    rate = here / max(tally.seconds, 1e-9)
    left = None
    if tally.share and here:
        left = tally.seconds * (1 - tally.share) / tally.share if not tally.resumed else None
    return {
        "rows": tally.rows,
        "bad": tally.bad,
        "rows_per_second": round(rate),
        "share": tally.share and round(tally.share, 4),
        "seconds_left": None if left is None else round(left),
    }


def _sentence(document: dict[str, Any]) -> str:
    """Return how far a run is for a person."""
    share = f", {100 * document['share']:.0f} %" if document["share"] else ""
    left = f", {_duration(document['seconds_left'])} left" if document["seconds_left"] is not None else ""
    bad = f", {document['bad']} bad" if document["bad"] else ""
    return f"{document['rows']:,} rows, {document['rows_per_second']:,} rows/s{share}{left}{bad}"


def _duration(seconds: int) -> str:
    """Return a time as hours, minutes and seconds."""
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
