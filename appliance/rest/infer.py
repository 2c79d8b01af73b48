"""Open Inference's infer call over HTTP: the body's three forms, memory, and the response's headers."""

from functools import partial

from appliance.budget import SMALL
from appliance.inference.version import LoadedVersion
from appliance.openinference import binary, response
from appliance.openinference import request as infer_request
from appliance.openinference.request import InferCall, InferRequestOf
from appliance.predictor import Prediction
from appliance.rest.http_types import Asked, Context, Request, Response, compress
from appliance.rest.json_body import decode_values
from appliance.rest.routed import settled, version_for

BINARY = "application/octet-stream"
FORM = '{"inputs": [{"name": ..., "shape": ..., "datatype": ..., "data": ...}]}'
"""What to send, for who sent something else."""

COMPRESSED_FROM = 1024
"""Bytes from which a response is compressed where the client accepts that; a smaller one would gain nothing."""


def infer(context: Context, request: Request, variables: dict[str, str]) -> Response:
    """Answer an infer request.

    Raises InvalidInput, TooLarge, NotFound for an unknown model or version, NotReady when none is active.
    """
    version = version_for(context, request, variables.get("name"), variables.get("version"), _key_in_body)
    call = _read(context, request, version)
    feeds = version.schema.from_tensors(call.tensors)
    if request.routed is not None:
        version = settled(request, version, feeds)
    call.tensors.clear()
    rows = len(next(iter(feeds.values())))
    context.limits.check_rows(rows)
    names = [wanted.name for wanted in call.wanted]
    if rows * response.costs_of(version).most > SMALL:
        request.claim_answer(response.most_bytes(version, call.wanted, rows), rows)
    prediction = context.predictor.run(
        version,
        feeds,
        names,
        started=request.started,
        request=_id_of(call),
        keys=request.keys,
        quality=call.quality,
    )
    return _respond(request, call, version, prediction)


def ask(context: Context, request: Request, variables: dict[str, str]) -> Asked | None:
    """Read a request as infer() does; None for one that wants classes, the quality of its rows or much memory."""
    version = version_for(context, request, variables.get("name"))
    if request.routed is not None:
        return None
    call = _read(context, request, version)
    if call.quality or any(wanted.classes for wanted in call.wanted):
        return None
    feeds = version.schema.from_tensors(call.tensors)
    rows = len(next(iter(feeds.values())))
    context.limits.check_rows(rows)
    if rows * response.costs_of(version).most > SMALL:
        return None
    names = [wanted.name for wanted in call.wanted]
    return Asked(version, feeds, names, partial(_respond, request, call, version), _id_of(call))


def _id_of(call: InferCall) -> str:
    """Return the id that a request has in its body, "" for none."""
    return (call.id or "")[:128]  # UNSET is false


def _respond(request: Request, call: InferCall, version: LoadedVersion, prediction: Prediction) -> Response:
    """Return the response of a prediction of the outputs that a call wants."""
    if prediction.logged and not call.id:
        call = InferCall(call.tensors, call.wanted, prediction.request_id)
    header, parts = response.write(call, prediction.outputs, version, prediction.quality)
    answer = Response(header)
    if parts:
        answer = Response(b"".join((header, *parts)), 200, BINARY, ((binary.HEADER_LENGTH, str(len(header))),))
    accepted = request.header("Accept-Encoding")
    return compress(answer, accepted) if accepted and len(answer.body) >= COMPRESSED_FROM else answer


def _read(context: Context, request: Request, version: LoadedVersion) -> InferCall:
    """Return what a request asks for, by the three forms that its header tells apart."""
    length = request.environ.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH")
    if length is None:
        return _parse(context, request, version, _body(request, length), memoryview(b""))
    header, tensors = binary.split(_body(request, length), length)
    if not header:
        return infer_request.read_raw(tensors, version, request.claim_more)
    return _parse(context, request, version, header, tensors)


def _body(request: Request, header_length: str | None) -> bytes:
    """Return the body, read here or by _key_in_body() before."""
    if request.routed is not None and request.routed.body:
        body, request.routed.body = request.routed.body, b""
        return body
    if header_length is None:
        return request.body()
    return request.body(partial(binary.cost, header_length=header_length), worst=0)


def _key_in_body(request: Request) -> str:
    """Return the routing key among the parameters of a request, "" where it has none, or is no request at all."""
    length = request.environ.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH")
    body = _body(request, length)
    assert request.routed is not None  # noqa: S101 - it is asked by version_for(), which has made it
    request.routed.body = body
    return infer_request.routing_key(body if length is None else binary.split(body, length)[0])


def _parse(context: Context, request: Request, version: LoadedVersion, header: bytes, content: memoryview) -> InferCall:
    """Return the call that a JSON part and the bytes behind it make."""
    sent, typed = decode_values(header, InferRequestOf, version.schema.value_type, context.limits, FORM)
    return infer_request.read(sent, content, version, context.limits, request.claim_more, typed=typed)
