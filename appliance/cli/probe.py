"""`appliance probe`: whether the running service answers a bundle's own examples as the original model did.

The self-test asks the graph; the probe asks the service, at the address and with the token that clients use. Binary
tensors of Open Inference carry every type, missing values and infinities exactly, so the same rule decides in both.
"""

import hashlib
import http.client
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from appliance import ahead, nofollow
from appliance.arrays import Array
from appliance.bundle import archive, examples
from appliance.bundle.manifest import Manifest
from appliance.cli import as_json, common_options, exit_code, options
from appliance.cli.address import Address, find, url_option
from appliance.cli.output import echo, print_json
from appliance.config import Config
from appliance.errors import BundleRefused, InvalidInput, NotAllowed, NotFound, NotReady, SelfTestFailed
from appliance.inference.comparison import compare
from appliance.openinference import binary
from appliance.openinference import request as infer_request
from appliance.openinference import response as infer_response
from appliance.store import activation, routing_record
from appliance.store.versions import Store

SECONDS = 30.0
"""How long one answer may take."""
PAUSE_SECONDS = 0.2
"""Between two tries while the service is not where the store is."""
MAX_ANSWER_BYTES = 256 * 1024 * 1024

_NOT_READY = (404, 503)
_NOT_ALLOWED = (401, 403)


class _OtherVersion(Exception):
    """Another version answered than the one that was named."""


class _Unanswered(Exception):
    """The service refused the examples, or failed at them."""


@dataclass(frozen=True, slots=True)
class Examples:
    """What one installed version is asked, and what its original model answered."""

    manifest: Manifest
    inputs: list[Array]
    outputs: list[Array]
    path: str
    """Of the call that answers them."""

    @property
    def rows(self) -> int:
        """The number of examples."""
        return len(self.inputs[0])


@dataclass(slots=True)
class ProbeResult:
    """What the service answered."""

    version: str
    """Which version answered."""
    wrong: NDArray[np.bool_]
    """For each example, whether an answer differed beyond the tolerance."""
    largest_difference: float | None = 0.0
    """None where there is no such number: only one of the two is finite, or nothing could be compared."""
    found: str = ""
    """What was wrong first; empty where nothing is."""
    seconds: list[float] = field(default_factory=list)
    """Of each request."""


@click.command()
@click.argument("name")
@click.option("--version", help="Ask this version instead of the active one.")
@click.option("--repeat", default=1, type=click.IntRange(1, 100_000), help="Ask so many times.", show_default=True)
@click.option(
    "--wait", default=5.0, type=click.FloatRange(0), show_default=True,
    help="Seconds that a service may take to start, or to follow an activation.",
)  # fmt: skip
@url_option
@as_json
@common_options
def probe(name: str, version: str | None, repeat: int, wait: float, url: str | None, as_json: bool) -> None:
    """Send the examples of the model NAME to the service on this host, and compare with the original model's answers.

    Exit code 3 when one is wrong or another version answers, 1 when the service does not answer, 4 for no such model.
    """
    config = options().config()
    asked, outcome = _after_the_switch(config, url, name, version, repeat, time.monotonic() + wait)
    failed = None
    if outcome.found:
        tried = f"probe {name} {asked.manifest.version} at {find(config, url)}"
        failed = SelfTestFailed(tried, outcome.found, f"see: appliance status; to go back: appliance rollback {name}")
    if as_json:
        print_json(_document(asked, outcome))
        click.get_current_context().exit(exit_code(failed) if failed else 0)
    if failed:
        raise failed
    echo(_line(asked, outcome))


def ask(config: Config, address: Address, asked: Examples, repeat: int) -> ProbeResult:
    """Return what the service answers to the examples, asked `repeat` times; the first other version ends it.

    Raises NotReady when it does not answer or does not serve the model, NotAllowed without a token that it takes.
    """
    outcome = ProbeResult(asked.manifest.version, np.zeros(asked.rows, bool))
    token = _token(config)
    for _ in range(repeat):
        # A connection each: of several processes that share the port, each gets its turn.
        connection = address.connection(SECONDS)
        try:
            for rows in _portions(asked, config):
                _ask_once(connection, asked, rows, token, outcome)
        except _OtherVersion as other:
            found = f"version {other} answered instead of {asked.manifest.version}"
            return ProbeResult(str(other), np.ones(asked.rows, bool), None, found, outcome.seconds)
        except _Unanswered as error:
            found = f"the service refuses the examples ({error})"
            return ProbeResult(asked.manifest.version, np.ones(asked.rows, bool), None, found, outcome.seconds)
        finally:
            connection.close()
    return outcome


def _after_the_switch(
    config: Config, url: str | None, name: str, version: str | None, repeat: int, deadline: float
) -> tuple[Examples, ProbeResult]:
    """Return the outcome once the service is where the store is, or the last one before the deadline."""
    store = Store(config.state_dir)
    while True:
        asked = _examples(store, name, version)
        late = time.monotonic() >= deadline
        try:
            outcome = ask(config, find(config, url), asked, repeat)  # it may be starting at another port
            if late or outcome.version == asked.manifest.version:
                return asked, outcome
        except NotReady:
            if late:
                raise
        time.sleep(PAUSE_SECONDS)


def _examples(store: Store, name: str, version: str | None) -> Examples:
    """Return the examples of a version, the active one by default; the graph itself is not read. Raises NotFound."""
    wanted = version
    if wanted is None and (wanted := activation.read(store, name).active) is None:
        installed = store.versions(name)
        next_step = f"appliance activate {name} {installed[-1]}" if installed else "see: appliance models"
        raise NotFound(f"probe {name}", "no version of it is active", next_step)
    folder = store.folder(name, wanted)
    manifest = archive.read_manifest(folder, within=store.state_dir)
    content = _proof(store, folder, manifest)
    inputs, outputs = examples.read(content)
    if not inputs or not len(inputs[0]) or (len(inputs), len(outputs)) != (len(manifest.inputs), len(manifest.outputs)):
        raise BundleRefused(f"probe {name} {wanted}", "its examples prove nothing", "install a sound bundle")
    # While an experiment runs, a request that names no version may be answered by another one.
    named = version or routing_record.running_if_sound(store.models_dir / name)
    path = f"/v2/models/{name}" + (f"/versions/{wanted}" if named else "") + "/infer"
    return Examples(manifest, inputs, outputs, path)


def _proof(store: Store, folder: Path, manifest: Manifest) -> bytes:
    """Return examples.npz, which must be the one that the manifest names."""
    tried, next_step = f"read {folder / archive.EXAMPLES}", "install the bundle again as another version"
    try:
        content = nofollow.read(folder / archive.EXAMPLES, within=store.state_dir)
    except OSError as error:
        raise BundleRefused(tried, error.strerror or str(error), next_step) from error
    if hashlib.sha256(content).hexdigest() != manifest.members[archive.EXAMPLES].sha256:
        raise BundleRefused(tried, f"its SHA-256 is not the one in {archive.MANIFEST}", next_step)
    return content


def _portions(asked: Examples, config: Config) -> Iterator[slice]:
    """Return slices of the examples, each within what the service takes in one request."""
    size = sum(len(binary.write(array)) for array in asked.inputs)
    parts = math.ceil(2 * size / config.http.max_body_bytes)  # the half is left for the JSON part
    step = max(1, min(config.http.max_rows, asked.rows // max(1, parts)))
    return (slice(start, start + step) for start in range(0, asked.rows, step))


def _ask_once(
    connection: http.client.HTTPConnection, asked: Examples, rows: slice, token: str, outcome: ProbeResult
) -> None:
    """Ask some of the examples, and add to `outcome` how the answers compare."""
    body, headers = _request(asked, rows)
    if token:
        headers["Authorization"] = f"Bearer {token}"
    scheme = "https" if isinstance(connection, http.client.HTTPSConnection) else "http"
    tried = f"ask the service at {scheme}://{connection.host}:{connection.port}"
    try:
        connection.connect() if connection.sock is None else None
        start = time.perf_counter()
        connection.request("POST", asked.path, body, headers)
        response = connection.getresponse()
        content = response.read(MAX_ANSWER_BYTES)
        outcome.seconds.append(time.perf_counter() - start)
    except (OSError, http.client.HTTPException) as error:
        found = f"it does not answer ({error or type(error).__name__})"
        raise NotReady(tried, found, "see: appliance status; systemctl status appliance") from error
    _check_status(tried, response.status, content)
    version, outputs = _read(tried, content, response.getheader(binary.HEADER_LENGTH, ""))
    if version != asked.manifest.version:
        raise _OtherVersion(version)
    _compare(asked, rows, outputs, outcome)


def _request(asked: Examples, rows: slice) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of an infer request whose tensors, both ways, are bytes."""
    inputs = {tensor.name: array[rows] for tensor, array in zip(asked.manifest.inputs, asked.inputs, strict=True)}
    header, parts = infer_request.write(inputs, [tensor.name for tensor in asked.manifest.outputs])
    headers = {"Content-Type": "application/octet-stream", binary.HEADER_LENGTH: str(len(header))}
    return b"".join((header, *parts)), headers


def _check_status(tried: str, status: int, content: bytes) -> None:
    """Raise for every answer that is none."""
    if status == 200:
        return
    try:
        text = str(msgspec.json.decode(content, type=dict[str, Any])["error"])[:500]
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError):
        text = f"HTTP {status}"
    if status in _NOT_READY:
        raise NotReady(tried, text, "see: appliance status; journalctl -u appliance")
    if status in _NOT_ALLOWED:
        raise NotAllowed(tried, text, "name the service's own configuration: --config FILE")
    raise _Unanswered(text)


def _read(tried: str, content: bytes, header_length: str) -> tuple[str, dict[str, Array]]:
    """Return the version and the outputs by name of an infer answer. Raises NotReady when it is none."""
    try:
        return infer_response.read(*binary.split(content, header_length))
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError, InvalidInput) as error:
        found = f"what answers there does not speak Open Inference ({str(error)[:200]})"
        raise NotReady(tried, found, "see which program listens there: ss -ltnp") from error


def _compare(asked: Examples, rows: slice, outputs: dict[str, Array], outcome: ProbeResult) -> None:
    """Add to `outcome` how some answers compare with the original's."""
    for tensor, expected in zip(asked.manifest.outputs, asked.outputs, strict=True):
        part = expected[rows]
        got = outputs.get(tensor.name, np.empty(0))
        compared = compare(tensor, asked.manifest.policy.tolerance, got, part)
        outcome.wrong[rows] |= compared.wrong
        outcome.found = outcome.found or compared.found
        if outcome.largest_difference is not None:
            largest = max(outcome.largest_difference, compared.largest_difference)
            finite = math.isfinite(compared.largest_difference)
            outcome.largest_difference = largest if finite else None


def _token(config: Config) -> str:
    """Return a token that the service takes, "" where it asks for none."""
    if not config.http.tokens_file or config.http.auth != "tokens":
        return ""
    file = Path(config.http.tokens_file)
    try:
        lines = [line.split() for line in ahead.read(file).decode("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        raise NotAllowed(f"read the tokens file {file}", str(reason), "run as root or as the service's user") from error
    return next((line[1] for line in lines if len(line) == 2 and line[0] in ("predict", "admin")), "")


def _document(asked: Examples, outcome: ProbeResult) -> dict[str, Any]:
    """Return the outcome as one JSON document; `version` is the one that answered."""
    return {
        "model": asked.manifest.name,
        "version": outcome.version,
        "expected_version": asked.manifest.version,
        "examples": asked.rows,
        "failures": int(np.count_nonzero(outcome.wrong)),
        "largest_difference": outcome.largest_difference,
        "found": outcome.found,
        "seconds": _times(outcome.seconds),
    }


def _times(seconds: list[float]) -> dict[str, float | None]:
    """Return median and 99th percentile (nearest rank) of the requests' times."""
    if not seconds:
        return {"median": None, "p99": None}
    return {
        "median": statistics.median(seconds),
        "p99": sorted(seconds)[math.ceil(0.99 * len(seconds)) - 1],
    }


def _line(asked: Examples, outcome: ProbeResult) -> str:
    """Return a good outcome as one line."""
    times = _times(outcome.seconds)
    return (
        f"{asked.manifest.name} {outcome.version} answers as the original model: {asked.rows} examples, "
        f"largest difference {outcome.largest_difference:.3g}, "
        f"median {1000 * (times['median'] or 0):.2f} ms, p99 {1000 * (times['p99'] or 0):.2f} ms"
    )
