"""The routes of health: they live, they are ready, and say why not; without a token."""

IRIS = ("iris", "1.0.0", "regression")


def test_a_service_with_its_active_version_loaded_and_tested_is_ready(start_service):
    service = start_service(IRIS, ("wine", "2.0.0", "classifier"))
    assert service.ask("GET", "/health/live") == (200, {"live": True})
    status, body = service.ask("GET", "/health/ready")
    assert (status, body["ready"], body["reasons"]) == (200, True, [])
    assert body["models"] == {
        "iris": {"ready": True, "version": "1.0.0"},
        "wine": {"ready": True, "version": "2.0.0"},
    }


def test_health_needs_no_token(start_service, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("predict 0123456789abcdef\n")
    tokens.chmod(0o600)
    service = start_service(IRIS, tokens_file=str(tokens))
    assert service.ask("GET", "/health/live")[0] == 200
    assert service.ask("GET", "/health/ready")[0] == 200
    assert service.ask("GET", "/models")[0] == 401


def test_a_service_without_any_model_lives_but_is_not_ready_and_says_what_to_do(start_service):
    service = start_service()
    assert service.ask("GET", "/health/live")[0] == 200
    status, body = service.ask("GET", "/health/ready")
    assert (status, body["ready"]) == (503, False)
    assert "appliance activate" in body["reasons"][0]
