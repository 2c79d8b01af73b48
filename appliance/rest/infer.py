"""Open Inference's infer call over HTTP: the body's three forms, memory, and the response's headers."""

from functools import partial

from appliance.budget import SMALL
from appliance.inference.version import LoadedVersion
from appliance.openinference import binary, response
from appliance.openinference import request as infer_request
from appliance.openinference.request import InferCall, InferRequestOf
from appliance.rest.http_types import Context, Request, Response, compress
from appliance.rest.json_body import decode_values

BINARY = "application/octet-stream"

COMPRESSED_FROM = 1024
"""Bytes from which a response is compressed where the client accepts that; a smaller one would gain nothing."""


def infer(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer an infer request.

    Raises InvalidInput, TooLarge, NotFound for an unknown model or version, NotReady when none is active.
    """
    version = context.predictor.route(variables.get("name"), variables.get("version"))
    call = _read(context, request, version)
    feeds = version.schema.from_tensors(call.tensors)
    call.tensors.clear()
    rows = len(next(iter(feeds.values())))
    context.limits.check_rows(rows)
    names = [wanted.name for wanted in call.wanted]
    if rows * response.costs_of(version).most > SMALL:
        request.claim_answer(response.most_bytes(version, call.wanted, rows), rows)
    identifier = call.id or ""  # UNSET is false
    prediction = context.predictor.run(version, feeds, names, started=request.started, request=identifier[:128])
    header, parts = response.write(call, prediction.outputs, version)
    answer = Response(header)
    if parts:
        answer = Response(b"".join((header, *parts)), 200, BINARY, ((binary.HEADER_LENGTH, str(len(header))),))
    accepted = request.header("Accept-Encoding")
    return compress(answer, accepted) if accepted and len(answer.body) >= COMPRESSED_FROM else answer


def _read(context: Context, request: Request, version: LoadedVersion) -> InferCall:
    """Return what a request asks for, by the three forms that its header tells apart."""
    length = request.environ.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH")
    if length is None:
        return _parse(context, request, version, request.body(), memoryview(b""))
    body = request.body(partial(binary.cost, header_length=length), worst=0)
    header, tensors = binary.split(body, length)
    if not header:
        return infer_request.read_raw(tensors, version, request.claim_more)
    return _parse(context, request, version, header, tensors)


def _parse(context: Context, request: Request, version: LoadedVersion, header: bytes, content: memoryview) -> InferCall:
    """Return the call that a JSON part and the bytes behind it make."""
    sent, typed = decode_values(header, InferRequestOf, version.schema.value_type, context.limits)
    return infer_request.read(sent, content, version, context.limits, request.claim_more, typed=typed)
