"""What is installed and what serves; and changing it, for those who may."""

import json
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

TOKENS = {"predict": "reader-0123456789abcdef", "admin": "writer-0123456789abcdef"}


@pytest.fixture
def tokens_file(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("".join(f"{scope} {token}\n" for scope, token in TOKENS.items()))
    file.chmod(0o600)
    return str(file)


def bearer(scope: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[scope]}"}


def predicted_by(service) -> str:
    return service.ask("POST", "/models/iris/predict", {"features": [1, 2, 3, 4]})[1]["version"]


def test_models_are_listed_with_versions_state_and_inputs(start_service):
    service = start_service(
        ("iris", "1.0.0", "regression"), ("iris", "1.1.0", "regression"), ("oven", "2.0.0", "table")
    )
    status, body = service.ask("GET", "/models")
    assert status == 200
    iris, oven = body["models"]
    assert (iris["name"], iris["active"], iris["serving"], iris["previous"]) == ("iris", "1.1.0", "1.1.0", "1.0.0")
    assert (iris["state"], iris["why"], iris["problem"]) == ("probation", "the test wants it", "")
    assert iris["since"].startswith("20")
    assert [(one["version"], one["active"]) for one in iris["versions"]] == [("1.0.0", False), ("1.1.0", True)]
    assert iris["versions"][0]["inputs"][0]["columns"][0] == "sepal_length"
    assert [tensor["name"] for tensor in oven["versions"][0]["inputs"]] == ["temp-C", "count", "site", "on"]
    assert oven["versions"][0]["task"] == "regression"
    assert oven["versions"][0]["tolerance"] == {"absolute": 1e-5, "relative": 1e-5}


def test_one_model_is_shown_alone_and_an_unknown_one_is_404_with_a_hint(start_service):
    service = start_service(("iris", "1.0.0", "regression"))
    status, alone = service.ask("GET", "/models/iris")
    (listed,) = service.ask("GET", "/models")[1]["models"]
    assert alone.pop("probation")["state"] == listed.pop("probation")["state"] == "probation"  # words change
    assert (status, alone) == (200, listed)
    status, body = service.ask("GET", "/models/irs")
    assert status == 404
    assert "iris" in body["next"]


def test_activate_mark_good_and_roll_back_take_effect_in_the_answer_and_in_predictions(
    start_service, tmp_path, make_bundle
):
    service = start_service(("iris", "1.0.0", "regression"))
    status, body = service.ask("POST", "/models/iris/mark-good")
    assert (status, body["state"]) == (200, "good")
    service.install(make_bundle(tmp_path, version="1.1.0"))
    status, body = service.ask("POST", "/models/iris/versions/1.1.0/activate")
    assert (status, body["active"], body["serving"], body["state"]) == (200, "1.1.0", "1.1.0", "probation")
    assert predicted_by(service) == "1.1.0"
    status, body = service.ask("POST", "/models/iris/rollback")
    assert (status, body["active"], body["serving"], body["state"]) == (200, "1.0.0", "1.0.0", "good")
    assert predicted_by(service) == "1.0.0"
    done = [(receipt.what, receipt.version) for receipt in service.store.receipts()][-3:]
    assert done == [("install", "1.1.0"), ("activate", "1.1.0"), ("roll back", "1.0.0")]


def test_a_version_that_fails_its_self_test_is_409_and_the_old_one_keeps_serving(start_service, tmp_path, make_bundle):
    service = start_service(("iris", "1.0.0", "regression"))
    service.install(make_bundle(tmp_path, version="1.1.0", error=1.0))
    status, body = service.ask("POST", "/models/iris/versions/1.1.0/activate")
    assert status == 409
    assert "instead of" in body["found"]
    assert predicted_by(service) == "1.0.0"


def test_a_version_with_other_inputs_is_409_unless_the_body_says_that_it_is_meant(start_service, tmp_path, make_bundle):
    service = start_service(("iris", "1.0.0", "regression"))
    service.install(make_bundle(tmp_path, version="1.1.0", kind="table"))
    path = "/models/iris/versions/1.1.0/activate"
    status, body = service.ask("POST", path)
    assert (status, "inputs_changed = true" in body["next"]) == (409, True)
    assert service.ask("POST", "/v2/repository/models/iris/load", {"parameters": {"version": "1.1.0"}})[0] == 409
    assert predicted_by(service) == "1.0.0"
    assert service.ask("POST", path, {"inputs": True})[0] == 400
    status, body = service.ask("POST", path, {"inputs_changed": True, "why": "new sensors"})
    assert (status, body["active"], body["serving"]) == (200, "1.1.0", "1.1.0")
    assert service.store.receipts()[-1].why == "new sensors"
    service.ask("POST", "/models/iris/rollback")
    for value, code in (("yes", 400), (True, 200)):
        wish = {"parameters": {"version": "1.1.0", "inputs_changed": value}}
        assert service.ask("POST", "/v2/repository/models/iris/load", wish)[0] == code


def test_what_cannot_be_done_is_404_with_what_to_do(start_service):
    service = start_service(("iris", "1.0.0", "regression"))
    for path in ("/models/iris/versions/9.9.9/activate", "/models/iris/rollback", "/models/wine/mark-good"):
        status, body = service.ask("POST", path)
        assert (status, body["status"], bool(body["next"])) == (404, 404, True), path


def test_changes_need_the_scope_admin_and_reading_needs_predict(start_service, tokens_file):
    service = start_service(("iris", "1.0.0", "regression"), tokens_file=tokens_file)
    reading = ["/models", "/models/iris", "/status", "/metrics"]
    changing = ["/models/iris/mark-good", "/models/iris/rollback", "/models/iris/versions/1.0.0/activate"]
    for path in reading:
        assert service.send("GET", path)[0] == 401, path
        assert service.send("GET", path, headers=bearer("predict"))[0] == 200, path
        assert service.send("GET", path, headers=bearer("admin"))[0] == 200, path
    for path in changing:
        status, headers, _ = service.send("POST", path)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer"), path
        assert service.send("POST", path, headers=bearer("predict"))[0] == 403, path
        assert service.send("POST", path, headers=bearer("admin"))[0] in (200, 404), path


def test_a_page_of_another_site_cannot_roll_back(start_service):
    service = start_service(("iris", "1.0.0", "regression"), ("iris", "1.1.0", "regression"))
    status, body = service.ask("POST", "/models/iris/rollback", headers={"Origin": "https://elsewhere.example"})
    assert (status, body["status"]) == (403, 403)
    assert predicted_by(service) == "1.1.0"


def test_a_version_with_a_damaged_manifest_is_listed_with_its_problem(start_service):
    service = start_service(("iris", "1.0.0", "regression"), ("iris", "1.1.0", "regression"))
    (service.store.folder("iris", "1.0.0") / "manifest.json").write_text("{")
    first, second = service.ask("GET", "/models/iris")[1]["versions"]
    assert "manifest.json" in first["problem"]
    assert second["problem"] == ""


def test_a_damaged_activation_record_is_told_and_the_loaded_version_serves_on(start_service):
    service = start_service(("iris", "1.0.0", "regression"))
    (service.store.models_dir / "iris" / "activation.json").write_text("{")
    body = service.ask("GET", "/models/iris")[1]
    assert "activation.json" in body["problem"]
    assert predicted_by(service) == "1.0.0"


def test_status_counts_what_was_asked(start_service):
    service = start_service(("iris", "1.0.0", "regression"))
    for rows in ([1, 2, 3, 4], [[1, 2, 3, 4], [5, 6, 7, 8]], "nonsense"):
        service.ask("POST", "/models/iris/predict", {"features": rows})
    status, body = service.ask("GET", "/status")
    assert (status, body["ready"], body["reasons"]) == (200, True, [])
    assert body["program"]
    assert body["host"]
    assert body["uptime_seconds"] >= 0
    sums = {key: sum(one[key] for one in body["counts"]) for key in ("requests", "failures", "rows")}
    assert sums == {"requests": 3, "failures": 1, "rows": 3}
    (count,) = [one for one in body["counts"] if one["version"] == "1.0.0"]
    assert 0 < count["run_seconds"] <= count["request_seconds"]
    assert abs(time.time() - count["last"]) < 60


def test_metrics_are_in_the_prometheus_text_format(start_service):
    service = start_service(("iris", "1.0.0", "regression"))
    service.ask("POST", "/models/iris/predict", {"features": [1, 2, 3, 4]})
    status, headers, content = service.send("GET", "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = {
        one.name: one.value for family in text_string_to_metric_families(content.decode()) for one in family.samples
    }
    assert found["appliance_prediction_rows_total"] == 1
    assert found["appliance_active_version_info"] == 1


def test_a_service_without_models_lists_none(start_service):
    service = start_service()
    assert service.ask("GET", "/models") == (200, {"models": []})
    assert json.loads(service.send("GET", "/status")[2])["ready"] is False
