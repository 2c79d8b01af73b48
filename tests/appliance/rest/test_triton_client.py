"""NVIDIA's own client (tritonclient.http, sync and asyncio) against the served appliance, over a real socket."""

import asyncio

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

ROWS = np.random.default_rng(7).random((600, 4)).astype(np.float32)


@pytest.fixture
def client(address):
    with triton.InferenceServerClient(address) as client:
        yield client


def as_input(rows: np.ndarray, name: str = "features", *, binary: bool = True, module=triton):
    made = module.InferInput(name, list(rows.shape), np_to_triton_dtype(rows.dtype))
    made.set_data_from_numpy(rows, binary_data=binary)
    return made


def test_commonest_call_asks_for_binary_outputs(client):
    got = client.infer("regression", [as_input(ROWS)])
    np.testing.assert_allclose(got.as_numpy("prediction"), ROWS.sum(axis=1) + 100, rtol=1e-6)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_json_and_binary_in_each_direction_agree(client, binary_in, binary_out):
    wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("probability", "prediction")]
    got = client.infer("labels", [as_input(ROWS, binary=binary_in)], outputs=wanted, request_id="7")
    exact = client.infer("labels", [as_input(ROWS)])
    np.testing.assert_array_equal(got.as_numpy("probability"), exact.as_numpy("probability"))
    labels = [value if isinstance(value, str) else value.decode() for value in got.as_numpy("prediction")]
    assert labels == [value.decode() for value in exact.as_numpy("prediction")]
    assert got.get_response()["id"] == "7"
    assert exact.get_response()["model_version"] == "1.0.0"


@pytest.mark.parametrize("request_compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("answer_compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compressed_requests_and_answers(client, request_compression, answer_compression, binary):
    got = client.infer(
        "regression",
        [as_input(ROWS, binary=binary)],
        outputs=[triton.InferRequestedOutput("prediction", binary_data=binary)],
        request_compression_algorithm=request_compression,
        response_compression_algorithm=answer_compression,
    )
    np.testing.assert_allclose(got.as_numpy("prediction"), ROWS.sum(axis=1) + 100, rtol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_columns_of_several_types(client, binary):
    columns = {
        "temp-C": np.array([[1.5], [2.5]], np.float32),
        "count": np.array([[2], [3]], np.int64),
        "site": np.array([["north"], ["ö"]], object),
        "on": np.array([[True], [False]]),
    }
    got = client.infer("table", [as_input(values, name, binary=binary) for name, values in columns.items()])
    assert got.as_numpy("prediction").tolist() == [213.5, 105.5]


def test_classification(client):
    wanted = [triton.InferRequestedOutput("probability", class_count=1)]
    got = client.infer("labels", [as_input(np.array([[9, 0, 0, 0]], np.float32))], outputs=wanted)
    value, index, label = got.as_numpy("probability")[0][0].decode().split(":")
    assert (float(value) > 0.9, index, label) == (True, "0", "setosa")


def test_async_infer_of_the_sync_client(client):
    assert client.async_infer("regression", [as_input(ROWS)]).get_result().as_numpy("prediction").shape == (600,)


def test_errors_tell_the_client_what_is_wrong(client):
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'nobody'") as raised:
        client.infer("nobody", [as_input(ROWS)])
    assert raised.value.status() == "404"
    with pytest.raises(InferenceServerException, match=r"its shape is \[600, 3\]"):
        client.infer("regression", [as_input(ROWS[:, :3].copy())])
    with pytest.raises(InferenceServerException, match="reserved"):
        client.infer("regression", [as_input(ROWS)], sequence_id=5)


def test_health_metadata_and_config(client):
    assert client.is_server_live()
    assert client.is_server_ready(query_params={"test": 1})
    assert client.is_model_ready("labels")
    assert client.is_model_ready("labels", "1.0.0")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "appliance"
    assert client.get_model_metadata("labels")["inputs"][0]["shape"] == [-1, 4]
    assert client.get_model_config("labels")["max_batch_size"] > 0
    assert client.get_inference_statistics("labels")["model_stats"][0]["name"] == "labels"
    assert isinstance(client.get_inference_statistics()["model_stats"], list)
    assert {entry["name"] for entry in client.get_model_repository_index()} >= {"labels", "table"}
    with pytest.raises(InferenceServerException, match="not served"):
        client.get_trace_settings()
    with pytest.raises(InferenceServerException, match="not served"):
        client.update_log_settings({"log_info": True})


def test_load_and_unload(make_api, listen):
    with listen(make_api("labels")) as where, triton.InferenceServerClient(where) as client:
        client.unload_model("labels", unload_dependents=True)
        assert not client.is_model_ready("labels")
        assert not client.is_server_ready()
        with pytest.raises(InferenceServerException, match="no active version"):
            client.infer("labels", [as_input(ROWS)])
        client.load_model("labels")
        assert client.is_model_ready("labels")
        with pytest.raises(InferenceServerException, match="'config' is not served"):
            client.load_model("labels", config="{}")


def test_asyncio_client(address):
    async def use() -> None:
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert (await client.get_server_metadata())["name"] == "appliance"
            # It says that it takes gzip, yet unpacks only the answers of infer.
            assert len((await client.get_model_metadata("echo"))["inputs"]) == 13
            assert (await client.get_model_config("echo"))["name"] == "echo"
            assert await client.get_model_repository_index()
            for packing in (None, "gzip", "deflate"):
                for binary in (True, False):
                    got = await client.infer(
                        "regression",
                        [as_input(ROWS, binary=binary, module=triton_aio)],
                        request_compression_algorithm=packing,
                        response_compression_algorithm=packing,
                    )
                    np.testing.assert_allclose(got.as_numpy("prediction"), ROWS.sum(axis=1) + 100, rtol=1e-6)
            with pytest.raises(InferenceServerException, match="Request for unknown model"):
                await client.infer("nobody", [as_input(ROWS, module=triton_aio)])

    asyncio.run(use())
