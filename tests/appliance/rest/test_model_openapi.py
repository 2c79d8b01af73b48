"""/models/NAME/openapi.json: a valid document whose examples and columns are those of the model itself."""

import json

import pytest
from jsonschema import Draft202012Validator

from appliance.rest import model_openapi

KINDS = ("regression", "classifier", "labels", "table", "echo")


def described(api, kind):
    """Return a model's document as it is sent."""
    answer = model_openapi.ROUTES[0].handler(api.context, None, {"name": kind})
    return json.loads(answer.body)


def schema_of(document, path):
    """Return the JSON schema of a call's request, which stands alone."""
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    text = json.dumps(schema | {"$defs": document["components"]["schemas"]})
    return Draft202012Validator(json.loads(text.replace("#/components/schemas/", "#/$defs/")))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_openapi_and_its_examples_are_answered_as_they_say(api, kind):
    from openapi_spec_validator import OpenAPIV31SpecValidator  # it takes a second to import

    document = described(api, kind)
    OpenAPIV31SpecValidator(document).validate()
    calls = {f"/models/{kind}/predict", f"/v2/models/{kind}/infer", f"/v1/models/{kind}:predict"}
    assert set(document["paths"]) == calls
    assert (document["info"]["title"], document["info"]["version"]) == (f"Model {kind}", "1.0.0")
    for path, methods in document["paths"].items():
        call = methods["post"]
        assert [one for one in call["parameters"] if one["in"] == "path"] == []
        example = call["requestBody"]["content"]["application/json"]["example"]
        schema_of(document, path).validate(example)
        got = api.post(path, example)
        assert got.status == 200, got.body
        assert got.json == call["responses"]["200"]["content"]["application/json"]["example"], path


def test_it_names_the_columns_with_their_types_and_says_what_is_refused(api):
    document = described(api, "table")
    row = document["components"]["schemas"]["Row"]
    kinds = {name: column["type"] for name, column in row["properties"].items()}
    assert kinds == {"temp-C": "number", "count": "integer", "site": "string", "on": "boolean"}
    assert row["properties"]["count"]["maximum"] == 2**63 - 1
    schema = schema_of(document, "/models/table/predict")
    good = {"temp-C": 1.5, "count": 3, "site": "north", "on": True}
    for fits in ({"features": good}, {"features": [good, good]}, {"features": list(good.values())}):
        assert schema.is_valid(fits), fits
        assert api.post("/models/table/predict", fits).status == 200
    for wrong in (
        {"features": good | {"count": 1.5}},
        {"features": good | {"more": 1}},
        {"features": {"count": 3}},
        {"features": [1.5, 3, "north"]},
        {"features": good | {"on": "yes"}},
        {"features": good | {"count": 2**63}},
    ):
        assert not schema.is_valid(wrong), wrong
        assert api.post("/models/table/predict", wrong).status == 400, wrong
    names = [one["properties"]["name"]["const"] for one in document["components"]["schemas"]["InferInput"]["anyOf"]]
    assert names == list(good)


def test_categories_and_missing_values_are_told(make_api, tmp_path, bundle_bytes):
    hint = model_openapi.ColumnHint(
        name="c", type="string", missing=True, required=True, closed=True, categories=["a", "b"], typical='"a"'
    )
    column = model_openapi._column(hint)
    assert (column["type"], column["enum"]) == (["string", "null"], ["a", "b", None])
    api = make_api()
    api.install(bundle_bytes("gaps", kind="gaps"), tmp_path)
    document = described(api, "gaps")
    schema = schema_of(document, "/models/gaps/predict")
    rows = {"features": [[1, None, 3, 4]]}
    assert schema.is_valid(rows)
    assert api.post("/models/gaps/predict", rows).status == 200


def test_the_general_document_is_left_as_it_is(api):
    from appliance.rest import openapi
    from appliance.rest.described import document

    before = json.dumps(document(openapi.ALL_ROUTES))
    described(api, "table")
    assert json.dumps(document(openapi.ALL_ROUTES)) == before
