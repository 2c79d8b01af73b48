"""Experiments over HTTP: what begins and ends takes effect in the answer, in predictions and in metrics."""

import json
import re

import pytest

from appliance import served_models

ROW = {"features": [1, 2, 3, 4]}
TOKENS = {"predict": "reader-0123456789abcdef", "admin": "writer-0123456789abcdef"}


@pytest.fixture
def service(start_service, tmp_path, make_bundle):
    """Return a service whose model iris has 1.0.0 active, 2.0.0 and 3.0.0 beside."""
    service = start_service(("iris", "1.0.0", "regression"))
    for version in ("2.0.0", "3.0.0"):
        service.install(make_bundle(tmp_path, version=version))
    return service


def of_status(service):
    """Return what MQTT's status has of the models."""
    return served_models.described(service.store, service.models, service.log, service._drift_of)


def versions_met(service, count: int = 40) -> set[str]:
    return {service.ask("POST", "/predict", ROW)[1]["version"] for _ in range(count)}


def test_a_split_begins_answers_and_ends(service):
    assert service.ask("GET", "/models/iris/experiment")[1]["running"] is False
    status, told = service.ask(
        "POST", "/models/iris/experiment", {"kind": "split", "shares": {"1.0.0": 50, "2.0.0": 50}, "why": "compare"}
    )
    assert (status, told["running"], told["kind"], told["why"]) == (200, True, "split", "compare")
    assert versions_met(service) == {"1.0.0", "2.0.0"}
    assert service.ask("GET", "/models/iris")[1]["experiment"]["id"] == told["id"]
    assert [one["experiment"]["id"] for one in of_status(service.service)] == [told["id"]]  # MQTT's status has it
    metrics = service.send("GET", "/metrics")[2].decode()
    assert 'appliance_experiment_share{model="iris",role="arm",version="2.0.0"} 0.5' in metrics
    assert 'appliance_experiment_verdict{model="iris",state="wait"} 1.0' in metrics
    asked = re.findall(r'^appliance_experiment_requests\{model="iris",version="[12].0.0"} (\S+)', metrics, re.MULTILINE)
    assert sum(map(float, asked)) == 40
    status, told = service.ask("POST", "/models/iris/experiment/abort")
    assert (status, told["running"], told["last"]["outcome"]) == (200, False, "taken back")
    assert versions_met(service) == {"1.0.0"}
    assert "appliance_experiment_share" not in service.send("GET", "/metrics")[2].decode()


def test_a_canary_is_promoted_and_the_version_is_on_probation(service):
    status, told = service.ask("POST", "/models/iris/experiment", {"kind": "canary", "version": "2.0.0", "hold": True})
    assert (status, told["steps"], told["step"]) == (200, [0.01, 0.05, 0.25, 0.5], 0)
    assert versions_met(service, 10) == {"1.0.0"}
    assert service.ask("POST", "/models/iris/experiment/promote")[1]["step"] == 1
    status, told = service.ask("POST", "/models/iris/experiment/promote", {"now": True})
    assert (status, told["last"]["outcome"], told["last"]["version"]) == (200, "promoted", "2.0.0")
    assert versions_met(service, 10) == {"2.0.0"}
    assert service.ask("GET", "/models/iris")[1]["state"] == "probation"


def test_a_plan_of_the_request_goes_before_the_settings(service):
    body = {"kind": "canary", "version": "2.0.0", "min_requests": 20, "min_seconds": 0, "margin": 0.1}
    status, told = service.ask("POST", "/models/iris/experiment", body)
    numbers = {"min_requests": 20, "min_seconds": 0, "max_seconds": 604800, "margin": 0.1, "alpha": 0.01}
    assert (status, told["plan"]) == (200, numbers)
    words = service.ask("GET", "/models/iris/experiment")[1]["evidence"]["verdict"]["text"]
    assert words.startswith("shadow: 2.0.0 has 0 of 20 requests")
    assert service.ask("GET", "/models/iris")[1]["experiment"]["verdict"].startswith("shadow: 2.0.0 has 0 of 20")
    (told,) = of_status(service.service)  # MQTT's status
    assert told["experiment"]["verdict"].startswith("shadow: 2.0.0 has 0 of 20")
    assert told["probation"]["state"] == "probation"
    assert service.ask("POST", "/models/iris/experiment", body | {"alpha": 0})[0] == 400


def test_rollback_ends_a_split(service):
    service.ask("POST", "/models/iris/experiment", {"kind": "split", "shares": {"1.0.0": 50, "2.0.0": 50}})
    status, told = service.ask("POST", "/models/iris/rollback")
    assert (status, told["active"], told["experiment"]) == (200, "1.0.0", None)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"kind": "canary"}, 400), ({"kind": "split", "version": "2.0.0"}, 400), ({"kind": "test"}, 400),
        ({"kind": "canary", "version": "2.0.0", "shares": {"2.0.0": 1}}, 400),
        ({"kind": "canary", "version": "2.0.0", "steps": [0]}, 400), ({"kind": "canary", "version": "1.0.0"}, 400),
        ({"kind": "shadow", "version": "2.0.0", "share": 3}, 400), ({"kind": "shadow", "version": "7.0.0"}, 404),
        ({"kind": "split", "shares": {"1.0.0": 50, "2.0.0": 60}}, 400), (b"{", 400), (b"", 400),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(service, body, status):
    got, told = service.ask("POST", "/models/iris/experiment", body)
    assert got == status
    assert told["next"]
    assert service.ask("GET", "/models/iris/experiment")[1]["running"] is False


def test_a_second_one_and_an_activation_are_a_conflict(service):
    service.ask("POST", "/models/iris/experiment", {"kind": "shadow", "version": "2.0.0"})
    assert service.ask("POST", "/models/iris/experiment", {"kind": "canary", "version": "3.0.0"})[0] == 409
    assert service.ask("POST", "/models/iris/versions/3.0.0/activate")[0] == 409
    assert service.ask("POST", "/models/oven/experiment/abort")[0] == 404
    assert service.ask("POST", "/models/iris/experiment/abort")[0] == 200
    assert service.ask("POST", "/models/iris/experiment/abort")[0] == 404


def test_changing_one_needs_the_scope_admin(start_service, tmp_path, make_bundle):
    file = tmp_path / "tokens"
    file.write_text("".join(f"{scope} {token}\n" for scope, token in TOKENS.items()))
    file.chmod(0o600)
    service = start_service(("iris", "1.0.0", "regression"), tokens_file=str(file))
    service.install(make_bundle(tmp_path, version="2.0.0"))
    wish = json.dumps({"kind": "shadow", "version": "2.0.0"}).encode()
    for scope, status in (("predict", 403), ("admin", 200)):
        headers = {"Authorization": f"Bearer {TOKENS[scope]}"}
        assert service.ask("GET", "/models/iris/experiment", None, headers)[0] == 200
        assert service.ask("POST", "/models/iris/experiment", wish, headers)[0] == status
    assert service.ask("POST", "/models/iris/experiment/abort")[0] == 401
