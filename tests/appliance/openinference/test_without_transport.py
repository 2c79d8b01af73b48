"""Open Inference without a transport: what one side writes the other reads, and limits are those of the listener."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from appliance.errors import InvalidInput, TooLarge
from appliance.inference.values import Scalar
from appliance.inference.version import LoadedVersion
from appliance.limits import Limits
from appliance.openinference import request, response
from appliance.openinference.request import InferRequestOf
from appliance.openinference.tensors import InferInputOf, checked
from appliance.store.versions import Store

LIMITS = Limits("grpc", body_bytes=1000, rows=2, nesting=8)


@pytest.fixture(scope="module")
def version(make_bundle, tmp_path_factory) -> LoadedVersion:
    folder: Path = tmp_path_factory.mktemp("openinference")
    store = Store(folder / "state")
    done = store.install(make_bundle(folder, "iris", kind="classifier"))
    return LoadedVersion(store.folder(done.name, done.version))


def rows_of(version: LoadedVersion, rows: int) -> dict[str, np.ndarray]:
    return {one.name: np.ones([rows, *one.shape[1:]], one.type) for one in version.manifest.inputs}


def read(header: bytes, parts: list[bytes], version: LoadedVersion, claimed: list[int] | None = None):
    sent = msgspec.json.decode(header, type=InferRequestOf[Scalar])
    claims = [] if claimed is None else claimed
    content = memoryview(b"".join(parts))
    return request.read(sent, content, version, LIMITS, lambda tried, size, found: claims.append(size), typed=False)


def test_request_and_response_that_are_written_are_read(version):
    rows = rows_of(version, 2)
    call = read(*request.write(rows, version.output_names), version)
    assert {name: array.tolist() for name, array in call.tensors.items()} == {
        name: array.tolist() for name, array in rows.items()
    }
    assert [one.name for one in call.wanted] == version.output_names
    assert all(one.binary for one in call.wanted)
    answers = version.session.run(version.schema.from_tensors(call.tensors), version.output_names)
    outputs = dict(zip(version.output_names, answers, strict=True))
    header, parts = response.write(call, outputs, version)
    answered, got = response.read(header, memoryview(b"".join(parts)))
    assert answered == version.version
    assert {name: array.tolist() for name, array in got.items()} == {
        name: array.tolist() for name, array in outputs.items()
    }


def test_rows_beyond_the_listeners_limit_name_its_setting(version):
    with pytest.raises(TooLarge, match=r"there are 3, 2 may be.*raise \[grpc\] max_rows"):
        read(*request.write(rows_of(version, 3), version.output_names), version)


def test_a_response_costs_what_is_asked_of_it(version):
    call = read(*request.write(rows_of(version, 1), version.output_names), version)
    costs = response.costs_of(version)
    one = response.most_bytes(version, call.wanted, 1)
    assert 0 < one <= costs.most
    assert response.most_bytes(version, call.wanted, 1000) == 1000 * one
    assert response.costs_of(version) is costs


def test_tensors_are_checked_before_an_array_is_made_of_them():
    inputs = [InferInputOf("x", [1], "FP32", data=[1.0]), InferInputOf("x", [1], "FP32", data=[2.0])]
    tensors = checked(inputs)
    assert next(tensors) is inputs[0]
    with pytest.raises(InvalidInput, match="sent twice"):
        next(tensors)
