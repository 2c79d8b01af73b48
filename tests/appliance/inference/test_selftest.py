import msgspec
import numpy as np
import pytest

from appliance.bundle import archive, examples
from appliance.bundle.manifest import Policy, Tolerance
from appliance.errors import BundleRefused, NotFound, SelfTestFailed
from appliance.inference import processor, selftest
from appliance.inference.session import Session


@pytest.fixture(params=["regression", "classifier", "labels", "table"])
def bundle(request, bundle_bytes):
    return archive.read(bundle_bytes(kind=request.param))


@pytest.fixture
def regression(bundle_bytes):
    return archive.read(bundle_bytes())


@pytest.fixture
def labels(bundle_bytes):
    return archive.read(bundle_bytes(kind="labels"))


def rebuilt(bundle, *, manifest=None, model=None, inputs=None, outputs=None):
    """Return `bundle` with some of its parts replaced, digests right."""
    old_inputs, old_outputs = examples.read(bundle.members[archive.EXAMPLES])
    proof = examples.write(old_inputs if inputs is None else inputs, old_outputs if outputs is None else outputs)
    return archive.read(
        archive.write(
            manifest or bundle.manifest, model or bundle.members[archive.MODEL], bundle.members[archive.PARITY], proof
        )
    )


def failure(bundle) -> str:
    with pytest.raises(SelfTestFailed) as caught:
        selftest.try_bundle(bundle)
    assert caught.value.tried == f"self-test of iris {bundle.manifest.version}"
    assert caught.value.next_step
    return caught.value.found


def outputs_of(bundle):
    return examples.read(bundle.members[archive.EXAMPLES])[1]


def test_a_sound_bundle_passes_and_gives_its_figures(bundle):
    figures = selftest.try_bundle(bundle)
    assert figures.rows == 5
    assert figures.largest_difference == 0.0
    assert figures.label_flips == 0
    assert figures.load_seconds > 0
    assert figures.seconds > 0
    assert figures.processor == processor.describe()


def test_an_installed_folder_is_read_whole_before_it_is_tried(tmp_path, bundle):
    for name, content in bundle.members.items():
        (tmp_path / name).write_bytes(content)
    assert selftest.self_test(tmp_path).rows == 5
    (tmp_path / archive.MODEL).write_bytes(bundle.members[archive.MODEL][:-1] + b"\0")
    with pytest.raises(BundleRefused, match="SHA-256"):
        selftest.self_test(tmp_path)
    with pytest.raises(NotFound):
        selftest.self_test(tmp_path / "absent")


def test_a_loaded_session_can_be_checked(bundle):
    proof = examples.read(bundle.members[archive.EXAMPLES])
    session = Session(bundle.members[archive.MODEL])
    assert selftest.check(bundle.manifest, session, *proof).rows == 5


def test_a_difference_beyond_the_tolerance_names_output_worst_row_and_tolerance(regression):
    expected = outputs_of(regression)[0].copy()
    expected[1] += 0.01
    expected[3] -= 0.5
    found = failure(rebuilt(regression, outputs=[expected]))
    assert "output 'prediction'" in found
    assert "row 3" in found
    assert "0.5" in found
    assert "is allowed" in found


def test_a_difference_within_the_tolerance_passes_and_is_told(regression):
    expected = outputs_of(regression)[0] + np.float32(0.25)
    manifest = msgspec.structs.replace(
        regression.manifest, policy=Policy(tolerance=Tolerance(absolute=0.3, relative=0))
    )
    assert selftest.try_bundle(rebuilt(regression, manifest=manifest, outputs=[expected])).largest_difference == 0.25


def test_the_relative_tolerance_is_of_the_original_answer(regression):
    expected = outputs_of(regression)[0]
    manifest = msgspec.structs.replace(
        regression.manifest, policy=Policy(tolerance=Tolerance(absolute=0, relative=0.1))
    )
    assert selftest.try_bundle(rebuilt(regression, manifest=manifest, outputs=[expected * np.float32(1.09)]))
    assert "row" in failure(rebuilt(regression, manifest=manifest, outputs=[expected * np.float32(0.9)]))


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_a_number_that_should_not_be_finite_is_not_close_to_any(regression, strange):
    expected = outputs_of(regression)[0].copy()
    expected[2] = strange
    assert "row 2" in failure(rebuilt(regression, outputs=[expected]))


def test_nan_equals_nan_and_infinity_itself(regression):
    inputs, _ = examples.read(regression.members[archive.EXAMPLES])
    rows = inputs[0].copy()
    rows[0, 0], rows[1, 0], rows[2, 0] = np.nan, np.inf, -np.inf
    expected = rows.sum(axis=1) + np.float32(100)
    figures = selftest.try_bundle(rebuilt(regression, inputs=[rows], outputs=[expected]))
    assert figures.largest_difference == 0.0
    expected[1] = -np.inf
    assert "row 1" in failure(rebuilt(regression, inputs=[rows], outputs=[expected]))


def test_a_label_flip_is_never_tolerated(labels):
    expected, probability = outputs_of(labels)
    expected = expected.copy()
    right = expected[4]
    expected[4] = "virginica" if right != "virginica" else "setosa"
    found = failure(rebuilt(labels, outputs=[expected, probability]))
    assert "differs in 1 of 5 rows" in found
    assert f"row 4 it is {right!r} instead of {expected[4]!r}" in found


def test_examples_without_rows_prove_nothing_and_fail(regression):
    empty = rebuilt(regression, inputs=[np.empty((0, 4), np.float32)], outputs=[np.empty(0, np.float32)])
    assert "at least 1" in failure(empty)


def test_examples_of_other_counts_than_the_manifest_fail(regression):
    assert "examples.npz has 1 inputs and 0 outputs" in failure(rebuilt(regression, outputs=[]))
    uneven = rebuilt(regression, outputs=[outputs_of(regression)[0][:3]])
    assert "all must have the same number" in failure(uneven)


def test_an_answer_of_another_shape_fails(regression):
    expected = outputs_of(regression)[0].reshape(5, 1)
    assert "shape [5]" in failure(rebuilt(regression, outputs=[expected]))


def test_a_graph_that_is_not_what_the_manifest_says_fails(regression, bundle_bytes):
    table = archive.read(bundle_bytes(kind="table")).members[archive.MODEL]
    assert "input 'features' is absent in the graph" in failure(rebuilt(regression, model=table))
    tensor = msgspec.structs.replace(regression.manifest.outputs[0], type="float64")
    manifest = msgspec.structs.replace(regression.manifest, outputs=[tensor])
    assert "is float32 in the graph, float64 in the manifest" in failure(rebuilt(regression, manifest=manifest))


def test_a_graph_that_wants_more_inputs_than_declared_fails(bundle_bytes):
    table = archive.read(bundle_bytes(kind="table"))
    inputs, outputs = examples.read(table.members[archive.EXAMPLES])
    manifest = msgspec.structs.replace(table.manifest, inputs=table.manifest.inputs[:-1])
    assert "inputs that the manifest lacks: on" in failure(
        rebuilt(table, manifest=manifest, inputs=inputs[:-1], outputs=outputs)
    )


@pytest.mark.parametrize("model", [b"", b"not a graph", b"\x08\x09"])
def test_a_graph_that_onnxruntime_does_not_load_fails(regression, model):
    assert "it does not load" in failure(rebuilt(regression, model=model or b"\0"))


def test_the_examples_must_fit_the_graph(regression):
    rows = np.zeros((5, 7), np.float64)
    assert "the examples do not run" in failure(rebuilt(regression, inputs=[rows]))


def test_the_processor_is_told_by_its_model_and_flags(tmp_path):
    arm = tmp_path / "arm"
    arm.write_text("processor\t: 0\nFeatures\t: fp asimd sve\nCPU part\t: 0xd0c\n\nHardware\t: Board X\n")
    assert processor.vector_extensions(arm) == ["asimd", "sve"]
    assert "Board X" in processor.describe(arm)
    other = tmp_path / "other"
    other.write_text("model name : Some CPU\nflags : sse4_1 avx\n")
    assert processor.vector_extensions(other) == ["sse4_1", "avx"]
    assert processor.describe(other) != processor.describe(arm)
    assert "unknown model" in processor.describe(tmp_path / "absent")
