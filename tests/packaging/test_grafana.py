"""Dashboard and alert rules: every query is PromQL over metrics that a service exposes, and every alert fires."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "packaging" / "grafana"
PROMTOOL = shutil.which("promtool") or str(ROOT / ".cache/prometheus/usr/bin/promtool")
OTHERS = {"up"}
"""Metrics that Prometheus makes itself."""
NAME = re.compile(r"\b(?:appliance_[a-z_]+|up)\b(?=[{\[\s)]|$)")
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$model": ".*"}


def promtool(*words: str | Path, within: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROMTOOL, *words], cwd=within, capture_output=True, text=True, check=False)


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads((FOLDER / "dashboard.json").read_text())


def queries(dashboard: dict[str, Any]) -> Iterator[str]:
    """Yield each query with its variables filled in."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            text = target["expr"]
            for name, value in VARIABLES.items():
                text = text.replace(name, value)
            assert "$" not in text, text
            yield text


def documented() -> dict[str, set[str]]:
    """Return {metric of docs/metrics.md: its labels}; tests/appliance/monitoring holds that page to what is exposed."""
    lines = (ROOT / "docs/metrics.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    found = {}
    for name, kind, labels, _ in table:
        of = {label.strip() for label in labels.split(",") if label.strip()}
        found[name.strip("`")] = of
        if kind == "histogram":
            found |= {f"{name.strip('`')}_bucket": of | {"le"}, f"{name.strip('`')}_count": of}
    return found


def test_the_rules_are_rules_and_the_example_configuration_takes_them():
    for words in (("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml")):
        done = promtool(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{len(rules())} rules found" in done.stdout + done.stderr


def test_each_alert_fires_where_it_should_and_not_elsewhere():
    done = promtool("test", "rules", "alerts.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    tested = [one["name"] for one in yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]]
    assert sorted(tested) == sorted(f"{rule['alert']} {how}" for rule in rules() for how in ("fires", "stays silent"))


def test_each_alert_says_where_it_is_and_what_to_do():
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert "$labels.instance" in rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_each_query_of_the_dashboard_is_promql(dashboard, tmp_path):
    recorded = [{"record": f"tried:{number}", "expr": text} for number, text in enumerate(queries(dashboard))]
    (tmp_path / "tried.yml").write_text(yaml.safe_dump({"groups": [{"name": "tried", "rules": recorded}]}))
    done = promtool("check", "rules", "tried.yml", within=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(recorded) > 40


def test_all_metrics_and_labels_are_those_that_a_service_exposes(dashboard):
    known = documented()
    texts = [*queries(dashboard), *(rule["expr"] for rule in rules())]
    for text in texts:
        names = set(NAME.findall(re.sub(r'"[^"]*"', '""', text)))
        assert names, text
        assert names <= known.keys() | OTHERS, text
        for name, inside in re.findall(r"(appliance_[a-z_]+)\{([^}]*)\}", text):
            asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', inside)))
            assert asked <= known[name] | {"instance", "job"}, text
    for variable in dashboard["templating"]["list"][1:]:
        assert re.search(r"appliance_[a-z_]+", variable["query"]["query"])[0] in known


def test_what_is_watched_is_all_there_is_to_watch(dashboard):
    """Every metric of ours is in the dashboard or in a rule."""
    used = {name for text in [*queries(dashboard), *(rule["expr"] for rule in rules())] for name in NAME.findall(text)}
    own = {name for name in documented() if name.startswith("appliance_") and not name.endswith("_count")}
    histograms = {name.removesuffix("_bucket") for name in own if name.endswith("_bucket")}
    assert own - histograms <= used


def test_panels_have_their_own_ids_and_places(dashboard):
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
            references = [target["refId"] for target in panel["targets"]]
            assert len(set(references)) == len(references), panel["title"]
    text = json.dumps(dashboard)
    assert not re.search(r"https?://", text), "it loads nothing from anywhere"


def test_the_page_lists_every_alert():
    page = (ROOT / "docs/how-to/monitor.md").read_text()
    assert re.findall(r"^\| `(Appliance\w+)` \|", page, re.MULTILINE) == [rule["alert"] for rule in rules()]
