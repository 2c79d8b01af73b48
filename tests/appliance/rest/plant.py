"""A service with a day behind it, for the dashboard's tests and pictures: traffic, drift, labels, receipts, a log."""

import math
import time
from pathlib import Path
from typing import Any

import msgspec

from appliance.bundle import archive, members
from appliance.config import LogConfig, PredictionLogConfig
from appliance.drift_report import ColumnReport, DriftReport
from appliance.monitoring import counters, drift_state, history_ring
from appliance.monitoring.history_ring import Counted
from appliance.store.versions import Store

COLUMNS = ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)")
LOG = LogConfig(predictions=PredictionLogConfig(enabled=True, columns={COLUMNS[3]: "hash"}))


def write_day(store: Store, model: str, requests: int = 12, trouble: int = 0) -> None:
    """Write a day of minutes that rise and fall; `trouble` requests of some minutes of the last half hour fail."""
    now = int(time.time() // 60)
    content = bytearray(history_ring.empty())
    for minute in range(now - history_ring.MINUTES + 1, now):
        answered = int(requests * (1.5 + math.sin(minute / 180) + 0.3 * math.sin(minute / 7)))
        failed = trouble if now - minute < 30 and minute % 5 == 0 else 0
        refused = int(minute % 97 == 0) * 3
        buckets = [0] * (len(counters.BOUNDS) + 1)
        buckets[4], buckets[6], buckets[9] = answered * 7 // 10, answered * 29 // 100, max(1, answered // 100)
        told = Counted(sum(buckets) + failed + refused, refused, failed, buckets)
        for place, part in history_ring.with_minute(bytes(content), minute, told).items():
            content[place : place + len(part)] = part
    folder = store.state_dir / "history"
    folder.mkdir(exist_ok=True)
    (folder / f"{model}.ring").write_bytes(content)


def write_drift(store: Store, model: str, version: str, column: str) -> None:
    """Write that a column is in drift."""
    because = ["its values differ from training (PSI 0.41)"]
    found = ColumnReport(column=column, role="input", state="drift", because=because, psi={"training": 0.41})
    report = DriftReport(
        model=model, version=version, state="drift", since="2026-01-01T00:00:00+00:00", columns=[found]
    )
    with store.writing("test"):
        drift_state.write(store, (model, version), drift_state.DriftState(drift_state.FORMAT, [], report=report))


def rows(count: int) -> list[list[float]]:
    """Return rows as of flowers, whose last column grows."""
    made = []
    for place in range(count):
        size = 0.5 + 0.5 * math.sin(place * 2.4)
        wave = math.sin(place * 1.7)
        made.append([4.8 + 2.4 * size, 3 + 0.4 * wave, 1.5 + 4.5 * size, 0.2 + 1.8 * size + place / 500])
    return [[round(value, 2) for value in row] for row in made]


def renamed(bundle: Path, folder: Path, name: str, version: str) -> Path:
    """Return a copy of an unsigned bundle under another name and version."""
    with archive.opened(bundle, most_bytes=2**30) as opened:
        content = archive.whole(opened)
    told = msgspec.structs.replace(content.manifest, name=name, version=version)
    parts = content.members
    path = folder / f"{name}-{version}.bundle"
    parity, examples, baseline = parts["parity.json"], parts["examples.npz"], parts.get(members.BASELINE)
    path.write_bytes(archive.write(told, parts["model.onnx"], parity, examples, baseline, None))
    return path


def lively(service: Any, iris: Path, folder: Path) -> None:
    """Let a service have the models iris and press, both of the iris example, and a day behind it."""
    store = service.store
    for name in ("iris", "press"):
        service.install(renamed(iris, folder, name, "1.0.0"))
        assert service.ask("POST", f"/models/{name}/versions/1.0.0/activate")[0] == 200
        write_day(store, name, trouble=3 if name == "press" else 0)
    service.ask("POST", "/models/iris/mark-good")
    service.install(renamed(iris, folder, "iris", "1.1.0"))
    canary = {"kind": "canary", "version": "1.1.0", "steps": [5, 50], "hold": True}
    assert service.ask("POST", "/models/iris/experiment", canary)[0] == 200
    for row in rows(60):
        assert service.ask("POST", "/models/iris/predict", {"features": row})[0] == 200
    service.ask("POST", "/models/iris/predict", {"features": [5.1, 3.5, "wet", 0.2]})
    service.ask("POST", "/models/press/predict", {"features": rows(40)})
    write_drift(store, "press", "1.0.0", COLUMNS[3])
