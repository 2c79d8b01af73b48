"""Experiments in the store: what begins, what is refused, what ends one, and what a crash leaves."""

import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle.likeness import differences
from appliance.errors import (
    ActiveVersion,
    ExperimentRuns,
    InputsChanged,
    Misuse,
    NotFound,
    Refused,
    SelfTestFailed,
    StoreError,
)
from appliance.inference.selftest import self_test
from appliance.store import activation, experiments, record, routing_record
from appliance.store.experiments import Wish
from appliance.store.routing_record import Arm, Plan, Routing
from appliance.store.versions import Store

STEPS = Plan(steps=(0.01, 0.25))
FIELDS = st.sampled_from(Routing.__struct_fields__)
SCALARS = st.none() | st.booleans() | st.integers(-2, 2**40) | st.floats(allow_nan=False) | st.text(max_size=5)


def nested(inner):
    """Return lists and objects of values, among them those that have the record's own names."""
    return st.lists(inner, max_size=3) | st.dictionaries(FIELDS | st.text(max_size=3), inner, max_size=4)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, make_bundle):
    folder = tmp_path_factory.mktemp("bundles")
    good = [make_bundle(folder, version=version) for version in ("1.0.0", "2.0.0", "3.0.0")]
    return [*good, make_bundle(folder, version="9.0.0", error=0.5), make_bundle(folder, version="8.0.0", kind="table")]


@pytest.fixture
def store(tmp_path, bundles):
    """Return a store with 1.0.0 active; 9.0.0 fails its self-test, 8.0.0 takes other columns."""
    store = Store(tmp_path / "state")
    for path in bundles:
        store.install(path)
    activation.activate(store, "iris", "1.0.0", self_test)
    return store


def canary(version="2.0.0", **rest):
    return Wish("canary", shadow=Arm(version, 1.0), plan=STEPS, **rest)


def split(**shares):
    return Wish(
        "split", arms=tuple(Arm(version.strip("v").replace("_", "."), share) for version, share in shares.items())
    )


def begin(store, wish, **rest):
    return experiments.begin(store, "iris", wish, self_test, **rest)


def experiments_done(store):
    return [(one.what, one.version) for one in store.receipts() if one.experiment and one.outcome == "done"]


def test_a_canary_begins_as_a_shadow_and_goes_through_its_steps(store):
    made = begin(store, canary(), why="retrained")
    assert (made.base, made.challengers, made.step) == ("1.0.0", ["2.0.0"], 0)
    assert [arm.share for arm in made.arms] == [1.0, 0.0]
    assert experiments.read(store, "iris") == made
    later = experiments.advance(store, "iris", made.id, 2, log_e={"failures": 0.5}, snapshot={"2.0.0": {"ok": 3.0}})
    assert [arm.share for arm in later.arms] == [0.75, 0.25]
    assert (later.salt, later.log_e) == (made.salt, {"failures": 0.5})
    assert experiments.read(store, "iris") == later
    kept = experiments.keep_evidence(store, "iris", made.id, log_e={"failures": 1.5}, snapshot=later.snapshot)
    assert experiments.read(store, "iris") == kept
    assert kept.log_e == {"failures": 1.5}
    assert experiments_done(store) == [("canary", "2.0.0"), ("step", "2.0.0")]
    receipt = store.receipts()[-1]
    assert (receipt.experiment["id"], receipt.experiment["arms"]) == (made.id, {"1.0.0": 0.75, "2.0.0": 0.25})


def test_promotion_makes_the_challenger_active_on_probation_and_ends_the_experiment(store):
    begin(store, canary())
    active = experiments.promote(store, "iris", self_test, why="better")
    assert (active.active, active.previous, active.state) == ("2.0.0", "1.0.0", "probation")
    assert experiments.read(store, "iris") is None
    assert not experiments.path(store, "iris").exists()
    assert experiments_done(store) == [("canary", "2.0.0"), ("promote", "2.0.0")]
    with pytest.raises(NotFound, match="no experiment runs"):
        experiments.promote(store, "iris", self_test)


def test_abort_leaves_the_active_version(store):
    made = begin(store, split(v1_0_0=0.5, v2_0_0=0.3, v3_0_0=0.2))
    assert experiments.abort(store, "iris", why="enough", evidence={"test": "failures"}) == made
    assert activation.read(store, "iris").active == "1.0.0"
    assert experiments.read(store, "iris") is None
    assert store.receipts()[-1].experiment["evidence"] == {"test": "failures"}
    with pytest.raises(NotFound, match="appliance canary"):
        experiments.abort(store, "iris")


def test_of_several_challengers_one_must_be_named(store):
    begin(store, split(v1_0_0=0.5, v2_0_0=0.3, v3_0_0=0.2))
    with pytest.raises(Misuse, match="appliance promote iris 3"):
        experiments.promote(store, "iris", self_test)
    assert experiments.promote(store, "iris", self_test, version="3.0.0").active == "3.0.0"


def test_what_is_meant_for_an_experiment_that_has_ended_changes_no_other(store):
    old = begin(store, canary())
    experiments.abort(store, "iris")
    new = begin(store, canary())
    for change in (
        lambda: experiments.advance(store, "iris", old.id, 1),
        lambda: experiments.keep_evidence(store, "iris", old.id, log_e={}, snapshot={}),
        lambda: experiments.promote(store, "iris", self_test, experiment=old.id),
        lambda: experiments.abort(store, "iris", experiment=old.id),
    ):
        with pytest.raises(NotFound, match="has ended"):
            change()
    assert experiments.read(store, "iris") == new
    assert new.salt != old.salt


@pytest.mark.parametrize(
    ("wish", "error", "match"),
    [
        (canary("1.0.0"), Misuse, "active version"),
        (canary("7.0.0"), NotFound, "installed"),
        (canary("9.0.0"), SelfTestFailed, "prediction"),
        (canary("8.0.0"), InputsChanged, "it has no input 'features'.*--inputs-changed"),
        (Wish("canary", shadow=Arm("2.0.0", 1.0), plan=Plan(steps=(0.5, 0.25))), Misuse, "rising"),
        (Wish("canary", shadow=Arm("2.0.0", 1.0), plan=Plan()), Misuse, "steps"),
        (Wish("shadow", shadow=Arm("2.0.0", 0.0)), Misuse, "share"),
        (split(v1_0_0=0.9, v2_0_0=0.2), Misuse, "together 100"),
        (split(v2_0_0=0.9, v3_0_0=0.1), Misuse, "1.0.0, the active version"),
        (split(v1_0_0=1.0), Misuse, "two versions"),
        (canary(key="column:nowhere"), Misuse, "no column 'nowhere'.*sepal_length"),
    ],
)
def test_what_cannot_work_is_refused_and_leaves_nothing(store, wish, error, match):
    with pytest.raises(error, match=match):
        begin(store, wish)
    assert experiments.read(store, "iris") is None
    assert not experiments.path(store, "iris").exists()
    assert not [one for one in store.receipts() if one.what in ("canary", "split", "shadow") and one.outcome == "done"]


def test_another_schema_can_be_meant(store):
    plan = msgspec.structs.replace(STEPS, schema_may_differ=True)
    assert begin(store, Wish("canary", shadow=Arm("8.0.0", 1.0), plan=plan)).challengers == ["8.0.0"]


def test_versions_that_take_too_much_memory_together_are_refused(store):
    figures = self_test(store.folder("iris", "2.0.0"))
    heavy = lambda folder: msgspec.structs.replace(figures, memory_bytes=600)  # noqa: E731
    with pytest.raises(Refused, match=r"600 bytes.*max_memory_bytes"):
        experiments.begin(store, "iris", canary(max_memory_bytes=599), heavy)
    assert experiments.begin(store, "iris", canary(max_memory_bytes=600), heavy)


def test_a_second_experiment_and_changes_that_would_end_one_are_refused(store):
    begin(store, canary())
    with pytest.raises(ExperimentRuns, match="appliance promote iris"):
        begin(store, Wish("shadow", shadow=Arm("3.0.0", 1.0)))
    with pytest.raises(ExperimentRuns, match=r"appliance promote iris 2\.0\.0"):
        activation.activate(store, "iris", "2.0.0", self_test)
    with pytest.raises(ExperimentRuns, match="appliance abort iris"):
        activation.activate(store, "iris", "3.0.0", self_test)
    with pytest.raises(ActiveVersion, match="appliance abort iris"):
        store.remove("iris", "2.0.0")
    assert activation.activate(store, "iris", "1.0.0", self_test).active == "1.0.0"  # tested again, as it is
    store.remove("iris", "3.0.0")
    assert experiments.read(store, "iris")


@pytest.mark.parametrize("end", ["roll back", "deactivate"])
def test_another_active_version_ends_the_experiment(store, end):
    activation.activate(store, "iris", "3.0.0", self_test)
    begin(store, canary())
    if end == "roll back":
        activation.roll_back(store, "iris", self_test)
    else:
        activation.deactivate(store, "iris")
    assert experiments.read(store, "iris") is None
    assert not experiments.path(store, "iris").exists()


def test_a_leftover_counts_for_nothing_and_does_not_come_to_life(store):
    begin(store, canary())
    folder = store.models_dir / "iris"
    record.write(folder, record.Activation(active="2.0.0", previous="1.0.0"))  # the power went before the deletion
    assert experiments.read(store, "iris") is None
    activation.roll_back(store, "iris", self_test)
    assert activation.read(store, "iris").active == "1.0.0"
    assert experiments.read(store, "iris") is None


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "abort iris"),
        (b"{ half", "abort iris"),
        (b'{"format": 2}', "format 2 is newer"),
        (b'{"format": 1}', "abort iris"),
    ],
)
def test_a_record_that_cannot_be_read_stops_nothing_and_abort_deletes_it(store, content, found):
    experiments.path(store, "iris").write_bytes(content)
    with pytest.raises(StoreError, match=found):
        experiments.read(store, "iris")
    assert activation.activate(store, "iris", "2.0.0", self_test).active == "2.0.0"
    experiments.path(store, "iris").write_bytes(content)
    assert experiments.abort(store, "iris") is None
    assert not experiments.path(store, "iris").exists()


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"arms": ()}, "its arms are none"),
        ({"arms": (Arm("2.0.0", 1.0), Arm("1.0.0", 0.0))}, "do not begin with 1.0.0"),
        ({"arms": (Arm("1.0.0", 1.0), Arm("1.0.0", 0.0))}, "do not begin with"),
        ({"arms": (Arm("1.0.0", 0.5), Arm("2.0.0", 0.4))}, "not 1 together"),
        ({"arms": (Arm("1.0.0", 0.5), Arm("3.0.0", 0.5))}, "two arms"),
        ({"shadow": None}, "two arms"),
        ({"step": 3}, "none of its 2 steps"),
        ({"step": -1}, "none of its 2 steps"),
        ({"kind": "shadow", "shadow": None, "arms": (Arm("1.0.0", 1.0),)}, "no version beside 1.0.0"),
        ({"kind": "split", "arms": tuple(Arm(f"{n}.0.0", 1 / 17) for n in range(1, 18))}, "17 arms, 16 are allowed"),
        ({"plan": msgspec.structs.replace(STEPS, alpha=0.0)}, "alpha"),
    ],
)
def test_a_record_that_no_command_writes_is_not_followed(store, changed, found):
    made = begin(store, canary())
    routing_record.write(store.models_dir / "iris", msgspec.structs.replace(made, **changed))
    with pytest.raises(StoreError, match=found):
        experiments.read(store, "iris")
    assert experiments.abort(store, "iris") is None


@given(st.binary(max_size=60) | st.recursive(SCALARS, nested, max_leaves=12).map(msgspec.json.encode))
def test_any_bytes_are_a_record_or_a_store_error(content):
    with TemporaryDirectory() as folder:
        model = Path(folder) / "models" / "iris"
        model.mkdir(parents=True)
        routing_record.path(model).write_bytes(content)
        with contextlib.suppress(StoreError):
            assert isinstance(routing_record.read(model), Routing)


def test_the_record_is_as_it_was_written(store):
    made = begin(store, canary())
    folder = store.models_dir / "iris"
    routing_record.write(folder, made)
    assert routing_record.read(folder) == made


def test_differences_are_told_in_words(store):
    one, other = store.manifest("iris", "1.0.0"), store.manifest("iris", "8.0.0")
    assert differences(one, one) == []
    site = next(tensor for tensor in other.inputs if tensor.name == "site")
    north, south = (msgspec.structs.replace(site, categories=[name, "west"]) for name in ("north", "south"))
    before, after = (msgspec.structs.replace(other, inputs=[tensor]) for tensor in (north, south))
    assert differences(before, after) == [
        "input 'site' takes no more 'north'", "input 'site' takes besides 'south'",
    ]  # fmt: skip
    labelled = msgspec.structs.replace(one, class_labels=["a", "b"])
    assert differences(labelled, msgspec.structs.replace(one, class_labels=["b", "a"])) == [
        "its labels are 'b', 'a' instead of 'a', 'b'"
    ]
