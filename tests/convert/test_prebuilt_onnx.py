"""ONNX graphs made elsewhere: taken as they are, and proved against the answers that a table expects."""

import numpy as np
import onnx
import pandas as pd
import pytest
import skl2onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LinearRegression, LogisticRegression

from appliance.bundle import archive
from appliance.errors import ConversionRefused, InvalidInput, Misuse, ParityFailed
from appliance.inference import selftest
from convert.converters import onnx_file
from convert.prebuilt_onnx import convert_graph

NAMES = ["a", "b", "c", "d"]


def graph_file(path, nodes, inputs, outputs, weights=(), opset=17, **more):
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(model, path, **more)
    return path


def tensor(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def halves(path, shape, rows=8):
    """A graph that halves its input; and a table of one row for each."""
    weight = numpy_helper.from_array(np.float32(0.5), "half")
    graph_file(
        path, [helper.make_node("Mul", ["x", "half"], ["y"])], [tensor("x", shape)], [tensor("y", shape)], [weight]
    )
    width = int(np.prod([size for size in shape[1:] if isinstance(size, int)]))
    x = pd.DataFrame(np.arange(rows * width, dtype=float).reshape(rows, width)).add_prefix("x")
    y = (x / 2).set_axis([f"y{i}" for i in range(width)], axis=1)
    return path, pd.concat([x, y], axis=1), ",".join(y.columns)


@pytest.fixture(scope="module")
def classifier(iris):
    x, y = iris
    return LogisticRegression(max_iter=500).fit(x, np.array(["setosa", "versicolor", "virginica"])[y])


@pytest.fixture
def answered(iris, classifier):
    table = pd.DataFrame(iris[0], columns=NAMES)
    table["label"] = classifier.predict(iris[0])
    table[["p0", "p1", "p2"]] = classifier.predict_proba(iris[0])
    return table


def save(model, path, **options):
    graph = skl2onnx.to_onnx(model, np.zeros((1, 4), dtype="float32"), options=options or None)
    path.write_bytes(graph.SerializeToString())
    return [output.name for output in graph.graph.output]


@pytest.mark.parametrize("zipmap", [True, False])
def test_a_classifier_with_or_without_zip_map_becomes_a_bundle_that_tests_itself(
    tmp_path, classifier, answered, zipmap
):
    label, share = save(classifier, tmp_path / "m.onnx", zipmap=zipmap)
    expected = [f"{label}=label", f"{share}=p0,p1,p2"]
    made = convert_graph(tmp_path / "m.onnx", answered, expected, name="iris", version="1.0.0")
    assert made.manifest.task == "classification"
    assert made.manifest.class_labels == ["setosa", "versicolor", "virginica"]
    assert [output.role for output in made.manifest.outputs] == ["prediction", "probability"]
    assert made.manifest.columns == NAMES
    assert selftest.try_bundle(archive.read(made.bundle())).label_flips == 0


def test_class_labels_that_the_sample_does_not_show_are_asked_for(tmp_path, classifier, answered):
    label, share = save(classifier, tmp_path / "m.onnx", zipmap=False)
    with pytest.raises(InvalidInput, match="which label belongs"):
        convert_graph(
            tmp_path / "m.onnx", answered.head(20), [f"{label}=label", f"{share}=p0,p1,p2"], name="m", version="1.0.0"
        )


def test_one_number_a_row_is_answered_flat_and_the_same_bytes_come_again(tmp_path, iris):
    x, y = iris
    model = LinearRegression().fit(x, y)
    save(model, tmp_path / "m.onnx")
    table = pd.DataFrame(x, columns=NAMES).assign(y=model.predict(x))
    bundles = [convert_graph(tmp_path / "m.onnx", table, ["y"], name="m", version="1.0.0") for _ in range(2)]
    assert bundles[0].bundle() == bundles[1].bundle()
    assert (bundles[0].manifest.outputs[0].shape, bundles[0].manifest.task) == ([-1], "regression")
    assert bundles[0].manifest.provenance.model_type == "onnx"


def test_other_answers_than_expected_are_refused_with_the_rows(tmp_path, classifier, answered):
    label, _ = save(classifier, tmp_path / "m.onnx", zipmap=False)
    answered.loc[3, "label"] = "virginica"
    reports = []
    with pytest.raises(ParityFailed, match="3 label flips"):
        convert_graph(
            tmp_path / "m.onnx",
            answered.drop(columns=["p0", "p1", "p2"]),
            [f"{label}=label"],
            name="m",
            version="1.0.0",
            reports=reports.append,
        )
    assert reports[0].worst[0].row["row"] == 3


def test_outputs_of_which_nothing_is_expected_do_not_travel(tmp_path, classifier, answered):
    label, _ = save(classifier, tmp_path / "m.onnx", zipmap=False)
    table = answered.drop(columns=["p0", "p1", "p2"])
    made = convert_graph(tmp_path / "m.onnx", table, [f"{label}=label"], name="m", version="1.0.0")
    assert [output.name for output in made.manifest.outputs] == ["prediction"]


@pytest.mark.parametrize("shape", [["n"], ["n", 3], ["n", "k"], ["n", 2, 3]], ids=str)
def test_a_table_fills_tensors_of_any_rank(tmp_path, ask, shape):
    path, table, expected = halves(tmp_path / "m.onnx", [size if size != "k" else 3 for size in shape])
    if "k" in shape:
        halves(path, ["n", "k"])
        path, table, expected = path, *halves(tmp_path / "other.onnx", ["n", 3])[1:]
    made = convert_graph(path, table, [expected], name="m", version="1.0.0")
    answers = ask(made, {column: table[column].to_numpy() for column in made.manifest.columns})
    wanted = table[expected.split(",")].to_numpy()
    assert (answers["prediction"].reshape(len(table), -1) == wanted).all()


def test_named_inputs_take_the_columns_of_their_names(tmp_path):
    nodes = [helper.make_node("Sub", ["b", "a"], ["y"])]
    path = graph_file(
        tmp_path / "m.onnx", nodes, [tensor("b", ["n", 1]), tensor("a", ["n", 1])], [tensor("y", ["n", 1])]
    )
    table = pd.DataFrame({"a": [1.0, 2, 3], "b": [5.0, 5, 5], "y": [4.0, 3, 2]})
    assert convert_graph(path, table, ["y"], name="m", version="1.0.0").manifest.columns == ["b", "a"]


def test_weights_beside_the_graph_travel_inside_it_and_count_in_its_digest(tmp_path):
    path, table, expected = halves(tmp_path / "plain.onnx", ["n", 2])
    model = onnx.load(path)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full(2, 0.5, "float32"), "half"))
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save(model, tmp_path / "m.onnx", **options)
    made = convert_graph(tmp_path / "m.onnx", table, [expected], name="m", version="1.0.0")
    (tmp_path / "weights.bin").write_bytes(np.full(2, 0.25, "float32").tobytes())
    assert onnx_file.read(tmp_path / "m.onnx").sha256 != made.manifest.provenance.sha256
    with pytest.raises(ParityFailed):
        convert_graph(tmp_path / "m.onnx", table, [expected], name="m", version="1.0.0")


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "link.bin"])
def test_weights_outside_the_folder_are_refused(tmp_path, location):
    (tmp_path / "weights.bin").write_bytes(bytes(8))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    path, _, _ = halves(folder / "m.onnx", ["n", 2])
    model = onnx.load(path)
    weight = numpy_helper.from_array(np.full(2, 0.5, "float32"), "half")
    onnx.external_data_helper.set_external_data(weight, location)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].CopyFrom(weight)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConversionRefused, match=r"m\.onnx"):
        onnx_file.read(path)


@pytest.mark.parametrize(
    ("shape", "found"),
    [([1, 2], "takes 1 rows"), ([], "takes no rows"), (["n", "k", "l"], "several axes of any size")],
)
def test_a_graph_that_takes_no_table_is_refused(tmp_path, shape, found):
    path, table, expected = halves(tmp_path / "m.onnx", ["n", 2])
    model = onnx.load(path)
    model.graph.input[0].CopyFrom(tensor("x", shape))
    model.graph.output[0].CopyFrom(tensor("y", shape))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConversionRefused, match=found):
        convert_graph(path, table, [expected], name="m", version="1.0.0")


@pytest.mark.parametrize(
    ("expected", "error", "found"),
    [
        ([], Misuse, "no original to ask"),
        (["z=y0,y1"], Misuse, "no output 'z'"),
        (["y0,y1", "y=y0,y1"], Misuse, "twice"),
        (["y0,nothing"], InvalidInput, "no column 'nothing'"),
        (["y0"], InvalidInput, "1 are named"),
    ],
)
def test_expected_answers_that_cannot_be_meant_are_told(tmp_path, expected, error, found):
    path, table, _ = halves(tmp_path / "m.onnx", ["n", 2])
    table = table.drop(columns=["y1"]) if expected == ["y0"] else table
    with pytest.raises(error, match=found):
        convert_graph(path, table, expected, name="m", version="1.0.0")


def test_a_table_of_another_width_and_gaps_in_the_answers_are_told(tmp_path):
    path, table, expected = halves(tmp_path / "m.onnx", ["n", 2])
    with pytest.raises(InvalidInput, match="take 2 columns"):
        convert_graph(path, table.assign(extra=1.0), [expected], name="m", version="1.0.0")
    table.loc[2, "y1"] = np.nan
    with pytest.raises(InvalidInput, match="gaps"):
        convert_graph(path, table, [expected], name="m", version="1.0.0")


def test_rows_that_lean_on_each_other_are_refused(tmp_path):
    nodes = [helper.make_node("CumSum", ["x", "axis"], ["y"])]
    axis = numpy_helper.from_array(np.int64(0), "axis")
    path = graph_file(tmp_path / "m.onnx", nodes, [tensor("x", ["n", 1])], [tensor("y", ["n", 1])], [axis])
    table = pd.DataFrame({"x": [1.0, 2, 3], "y": [1.0, 3, 6]})
    with pytest.raises(ParityFailed, match=r"turned|alone"):
        convert_graph(path, table, ["y"], name="m", version="1.0.0")


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_refused_as_a_graph(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    with pytest.raises(ConversionRefused) as refused:
        onnx_file.read(path)
    assert refused.value.next_step
