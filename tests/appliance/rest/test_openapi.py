"""openapi.json: the whole table of routes, in types that the service's real answers keep to."""

import json
import re
from types import SimpleNamespace

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from appliance.rest import openapi
from appliance.settings import load

MODELS = (("iris", "1.0.0", "labels"), ("oven", "2.0.0", "table"))
OVEN_ROW = {"temp-C": 20.5, "count": 3, "site": "north", "on": True}
INFER = {"inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


@pytest.fixture(scope="module")
def document():
    return json.loads(json.dumps(openapi.document(openapi.ALL_ROUTES)))


def operations(document):
    return [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def resolved(document, schema):
    """Return a schema that stands alone: references lead into the document's own components."""
    text = json.dumps(schema | {"$defs": document["components"]["schemas"]})
    return json.loads(text.replace("#/components/schemas/", "#/$defs/"))


def described(document, method: str, path: str) -> str:
    """Return the described path that a real one means."""
    for known in document["paths"]:
        if (
            re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+?", re.escape(known)), path)
            and method.lower() in document["paths"][known]
        ):
            return known
    raise AssertionError(f"{method} {path} is not described")


def test_every_route_of_the_service_is_described(document, start_service):
    served = start_service().service.http.server.application.routes
    table = {(route.method, route.path) for route in served}
    assert {(method, path) for method, path, _ in operations(document)} == table
    assert len(served) == len(table)


def test_paths_that_the_configuration_adds_are_described_too(tmp_path):
    environment = {"AIP_HTTP_PORT": "0", "AIP_PREDICT_ROUTE": "/vertex/predict", "AIP_HEALTH_ROUTE": "/vertex/health"}
    paths = {}
    for name, more in (("with", environment), ("without", {})):
        config = load(None, {"APPLIANCE_STATE_DIR": str(tmp_path / name), **more}).http
        answer = openapi.OPENAPI.handler(SimpleNamespace(config=config), None, {})
        paths[name] = json.loads(answer.body)["paths"]
    assert paths["with"]["/vertex/predict"]["post"]["summary"] == paths["with"]["/invocations"]["post"]["summary"]
    assert "get" in paths["with"]["/vertex/health"]
    assert "/vertex/predict" not in paths["without"]


def test_the_document_is_served_as_it_is_made_from_the_table(start_service, document):
    running = start_service()
    assert running.ask("GET", "/openapi.json") == (200, document)


def test_every_schema_is_valid_json_schema_and_every_reference_leads_somewhere(document):
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert resolved(document, schema), name
    text = json.dumps(document)
    for target in set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', text)):
        assert target in document["components"]["schemas"]


def test_the_document_is_valid_openapi(document):
    OpenAPIV31SpecValidator(document).validate()


def test_the_parts_that_openapi_asks_for_are_there(document):
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(document["info"])
    identifiers = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(identifiers)) == len(identifiers)
    for method, path, operation in operations(document):
        required = [parameter for parameter in operation["parameters"] if parameter["in"] == "path"]
        assert [parameter["name"] for parameter in required] == re.findall(r"\{(\w+)\}", path), path
        assert all(parameter["required"] is True for parameter in required)
        asked = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"]
        assert asked in ([], ["probability", "header"])
        assert all(answer["description"] for answer in operation["responses"].values())
        assert operation["summary"]
        assert method == "POST" or "requestBody" not in operation, path


def test_a_route_needs_the_token_that_its_scope_says(document):
    for route in openapi.ALL_ROUTES:
        security = document["paths"][route.path][route.method.lower()]["security"]
        expected = [] if route.scope == "none" else [{"token": [route.scope]}, {}]
        assert security == expected, route.path
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


REAL = [
    ("POST", "/predict", {"features": [1, 2, 3, 4]}),
    ("POST", "/models/iris/predict", {"features": [[1, 2, 3, 4], [5, 6, 7, 8]]}),
    ("POST", "/models/iris/versions/1.0.0/predict", {"features": [1, 2, 3, 4]}),
    ("POST", "/models/oven/predict", {"features": [OVEN_ROW]}),
    ("POST", "/models/oven/predict", {"features": OVEN_ROW}),
    ("POST", "/v2/models/iris/infer", INFER),
    ("POST", "/v2/models/iris/versions/1.0.0/infer", INFER),
    ("GET", "/v2", None),
    ("GET", "/v2/health/live", None),
    ("GET", "/v2/health/ready", None),
    ("GET", "/v2/models/iris", None),
    ("GET", "/v2/models/iris/ready", None),
    ("GET", "/v2/models/iris/config", None),
    ("GET", "/v2/models/iris/stats", None),
    ("POST", "/v2/repository/index", {}),
    ("POST", "/v2/repository/models/iris/load", {}),
    ("POST", "/v1/models/iris:predict", {"instances": [[1, 2, 3, 4]]}),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/iris", None),
    ("GET", "/ping", None),
    ("GET", "/health/live", None),
    ("GET", "/health/ready", None),
    ("GET", "/models", None),
    ("GET", "/models/oven", None),
    ("GET", "/status", None),
    ("POST", "/models/iris/mark-good", None),
    ("POST", "/models/iris/versions/1.0.0/activate", None),
]


def test_real_requests_and_answers_keep_to_their_schemas(start_service, document):
    running = start_service(*MODELS)
    for method, path, body in REAL:
        status, answer = running.ask(method, path, body)
        if path == "/predict":  # two models are active, so the service cannot know which is meant
            assert status == 400
            continue
        assert status == 200, (path, answer)
        operation = document["paths"][described(document, method, path)][method.lower()]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        Draft202012Validator(resolved(document, schema)).validate(answer)
        if body is not None and "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            Draft202012Validator(resolved(document, schema)).validate(body)


def test_real_errors_keep_to_their_schemas(start_service, document):
    running = start_service(*MODELS)
    wrong = [
        ("POST", "/models/iris/predict", b"{"),
        ("POST", "/models/iris/predict", {"features": [1]}),
        ("POST", "/models/wine/predict", {"features": [1]}),
        ("POST", "/v2/models/iris/infer", {"inputs": []}),
        ("GET", "/v2/models/wine", None),
        ("POST", "/v1/models/wine:predict", {"instances": [[1]]}),
        ("POST", "/invocations", {"inputs": 1, "instances": 2}),
        ("GET", "/models/wine", None),
        ("POST", "/models/iris/rollback", None),
    ]
    for method, path, body in wrong:
        status, headers, content = running.send(method, path, body)
        assert 400 <= status < 500, path
        operation = document["paths"][described(document, method, path)][method.lower()]
        described_as = operation["responses"]["default"]["content"]
        assert headers["Content-Type"] in described_as, path
        schema = resolved(document, described_as[headers["Content-Type"]]["schema"])
        Draft202012Validator(schema).validate(json.loads(content))


def test_a_service_that_is_not_ready_says_so_in_the_described_words(start_service, document):
    running = start_service()
    for path in ("/health/ready", "/v2/health/ready", "/ping"):
        status, headers, content = running.send("GET", path)
        assert status == 503, path
        schema = document["paths"][path]["get"]["responses"]["503"]["content"][headers["Content-Type"]]["schema"]
        Draft202012Validator(resolved(document, schema)).validate(json.loads(content))


def test_a_request_that_the_service_refuses_does_not_fit_its_schema(document):
    schema = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator(resolved(document, schema))
    assert validator.is_valid({"features": [1, 2.5, "x", None, True]})
    for wrong in ({}, {"feature": [1]}, {"features": 3}, {"features": [[[1]]]}, [1, 2], {"features": []}):
        assert not validator.is_valid(wrong), wrong


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("/v2/models/{name}/infer", {"inputs": []}),
        ("/v2/models/{name}/infer", {"inputs": [INFER["inputs"][0] | {"datatype": "BF16"}]}),
        ("/v2/models/{name}/infer", {"inputs": [INFER["inputs"][0] | {"shape": [0, 4]}]}),
        ("/v2/models/{name}/infer", {"inputs": [INFER["inputs"][0] | {"shape": [1] * 9}]}),
        ("/invocations", []),
        ("/invocations", {"instances": []}),
        ("/invocations", {"inputs": {"a": []}}),
        ("/invocations", {"dataframe_split": {"data": []}}),
        ("/v1/models/{name}:predict", {"instances": []}),
        ("/v1/models/{name}:predict", {"inputs": []}),
    ],
)
def test_schema_says_what_is_refused(document, start_service, path, wrong):
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert not Draft202012Validator(resolved(document, schema)).is_valid(wrong)
    running = start_service(("iris", "1.0.0", "labels"))
    assert running.ask("POST", path.replace("{name}", "iris"), wrong)[0] == 400


def arrays(value):
    """Return every schema of an array within a JSON value."""
    if isinstance(value, list):
        return [found for one in value for found in arrays(one)]
    if not isinstance(value, dict):
        return []
    return [value] * (value.get("type") == "array") + arrays(list(value.values()))


def test_what_may_be_routed_takes_a_key_and_says_which_arm_answered(document):
    for route in (route for route in openapi.ALL_ROUTES if route.hot):
        operation = document["paths"][route.path][route.method.lower()]
        keyed = any(one["name"] == "X-Routing-Key" for one in operation["parameters"])
        arm = "X-Experiment" in operation["responses"]["200"].get("headers", {})
        assert (keyed, arm) == ("{version}" not in route.path,) * 2, route.path


def test_every_array_says_what_it_holds(document):
    found = arrays([document["components"]["schemas"], document["paths"]])
    assert len(found) > 20
    assert all(schema["items"] for schema in found)


def test_every_prediction_has_examples_that_keep_to_their_schemas(document):
    for route in openapi.ALL_ROUTES:
        if not route.hot:
            continue
        operation = document["paths"][route.path]["post"]
        for described_as in (operation["requestBody"], operation["responses"]["200"]):
            body = described_as["content"]["application/json"]
            Draft202012Validator(resolved(document, body["schema"])).validate(body["example"])
            lines = {"text/csv", "application/jsonlines"} & described_as["content"].keys()
            assert len(lines) == (2 if route.lines else 0), route.path


def test_page_is_described_as_html(document):
    content = document["paths"]["/"]["get"]["responses"]["200"]["content"]
    assert list(content) == ["text/html", "application/json"]
    assert content["text/html"]["schema"] == {"type": "string"}
