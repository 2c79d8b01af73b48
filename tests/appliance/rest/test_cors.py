"""CORS: pages of the named sites may ask and read answers, others may not; off, nothing is said of it."""

import pytest

from appliance.config import HttpConfig
from appliance.errors import ConfigError
from appliance.rest import auth

SITE = "https://app.example:8443"
ASKING = {"Origin": SITE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


def test_page_of_a_named_site_may_ask_and_read(start_service):
    running = start_service(("iris", "1.0.0", "labels"), origins=(SITE,))
    status, headers, content = running.send("OPTIONS", "/models/iris/predict", headers=ASKING)
    assert (status, content) == (204, b"")
    assert headers["Access-Control-Allow-Origin"] == SITE
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert headers["Access-Control-Allow-Headers"] == "content-type"
    for path, body in (("/models/iris/predict", {"features": [1, 2, 3, 4]}), ("/models/iris/predict", {"features": 1})):
        status, headers, _ = running.send("POST", path, body, {"Origin": SITE})
        assert status == (200 if body["features"] != 1 else 400)  # an error can be read too
        assert (headers["Access-Control-Allow-Origin"], headers["Vary"]) == (SITE, "Origin")
    status, headers, _ = running.send("GET", "/models", headers={"Origin": SITE})
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, SITE)


def test_page_of_another_site_may_not(start_service):
    running = start_service(("iris", "1.0.0", "labels"), origins=(SITE,))
    for origin in ("https://app.example", "http://app.example:8443", "null", "https://evil.example"):
        status, headers, _ = running.send("OPTIONS", "/models/iris/predict", headers=ASKING | {"Origin": origin})
        assert (status, headers["Access-Control-Allow-Origin"]) == (204, None)
        status, headers, _ = running.send(
            "POST", "/models/iris/predict", {"features": [1, 2, 3, 4]}, {"Origin": origin}
        )
        assert (status, headers["Access-Control-Allow-Origin"]) == (403, None)


def test_named_site_may_not_do_what_an_administrator_may(start_service):
    running = start_service(("iris", "1.0.0", "labels"), origins=(SITE,))
    assert running.send("POST", "/models/iris/mark-good", headers={"Origin": SITE})[0] == 403
    assert running.send("POST", "/models/iris/mark-good")[0] == 200


def test_nothing_is_said_where_no_site_is_named(start_service):
    running = start_service(("iris", "1.0.0", "labels"))
    status, headers, _ = running.send("OPTIONS", "/models/iris/predict", headers=ASKING)
    assert (status, headers["Access-Control-Allow-Origin"]) == (403, None)
    _, headers, _ = running.send("POST", "/models/iris/predict", {"features": [1, 2, 3, 4]})
    assert headers["Vary"] is None


def test_with_tokens_every_site_may_be_named(start_service, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("predict 0123456789abcdef-predict\n")
    tokens.chmod(0o600)
    running = start_service(("iris", "1.0.0", "labels"), origins=("*",), tokens_file=str(tokens))
    assert running.send("OPTIONS", "/models/iris/predict", headers=ASKING)[1]["Access-Control-Allow-Origin"] == SITE
    body, token = {"features": [1, 2, 3, 4]}, {"Authorization": "Bearer 0123456789abcdef-predict"}
    assert running.send("POST", "/models/iris/predict", body, {"Origin": SITE})[0] == 401
    status, headers, _ = running.send("POST", "/models/iris/predict", body, {"Origin": SITE} | token)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, SITE)
    with pytest.raises(ConfigError, match="every page"):
        auth.refuse_open_port(HttpConfig(origins=("*",)))


NONE = ["app.example", "https://app.example/", "https://APP.example", "ftp://x", "https://u@x", "https://", "**"]


@pytest.mark.parametrize("origin", [*NONE, "https://["])
def test_what_is_no_origin_is_refused(origin):
    with pytest.raises(ConfigError, match="is no origin"):
        auth.guard(HttpConfig(origins=(origin,)))
