import pytest

from appliance.errors import InputsChanged, NotFound, SelfTestFailed, StoreError
from appliance.inference.selftest import self_test
from appliance.store import activation
from appliance.store.activation import Activation
from appliance.store.versions import Store

VERSIONS = ("1.0.0", "2.0.0", "3.0.0")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, make_bundle):
    folder = tmp_path_factory.mktemp("bundles")
    wrong = make_bundle(folder, version="9.0.0", error=0.5)
    return [*(make_bundle(folder, version=version) for version in VERSIONS), wrong]


@pytest.fixture
def store(tmp_path, bundles):
    store = Store(tmp_path / "state")
    for path in bundles:
        store.install(path)
    return store


def activate(store, version, **rest):
    return activation.activate(store, "iris", version, self_test, **rest)


def roll_back(store):
    return activation.roll_back(store, "iris", self_test)


def in_short(record):
    return record.active, record.previous, record.state


def done(store):
    return [(r.what, r.version) for r in store.receipts() if r.outcome == "done" and r.what != "install"]


def test_nothing_is_active_before_the_first_activation(store):
    assert activation.read(store, "iris") == Activation()
    assert activation.read(store, "no-such-model") == Activation()


def test_activate_puts_a_version_on_probation_and_remembers_the_one_before(store):
    assert in_short(activate(store, "1.0.0", why="first")) == ("1.0.0", None, "probation")
    record = activate(store, "2.0.0", why="better")
    assert in_short(record) == ("2.0.0", "1.0.0", "probation")
    assert record.why == "better"
    assert record.since.endswith("+00:00")
    assert activation.read(store, "iris") == record
    assert activation.path(store, "iris").is_file()


def test_the_receipt_of_an_activation_holds_the_self_test(store):
    activate(store, "1.0.0", why="first")
    receipt = store.receipts()[-1]
    assert (receipt.what, receipt.version, receipt.why) == ("activate", "1.0.0", "first")
    assert receipt.self_test["rows"] == 5
    assert receipt.self_test["largest_difference"] == 0.0
    assert receipt.self_test["label_flips"] == 0
    assert receipt.self_test["processor"]


def test_activating_the_active_version_again_changes_nothing(store):
    activate(store, "1.0.0")
    first = activation.mark_good(store, "iris")
    assert activate(store, "1.0.0", why="again") == first
    assert done(store) == [("activate", "1.0.0"), ("mark good", "1.0.0")]


def test_a_version_that_fails_its_self_test_does_not_become_active_and_the_refusal_is_kept(store):
    activate(store, "1.0.0")
    with pytest.raises(SelfTestFailed, match="prediction"):
        activate(store, "9.0.0")
    assert activation.read(store, "iris").active == "1.0.0"
    receipt = store.receipts()[-1]
    assert (receipt.what, receipt.version, receipt.outcome) == ("activate", "9.0.0", "refused")
    assert "prediction" in receipt.why


def test_a_version_that_is_not_installed_cannot_become_active(store):
    with pytest.raises(NotFound):
        activate(store, "4.0.0")
    with pytest.raises(NotFound):
        activation.activate(store, "wine", "1.0.0", self_test)


def test_mark_good_ends_probation(store):
    activate(store, "1.0.0")
    assert in_short(activation.mark_good(store, "iris")) == ("1.0.0", None, "good")
    assert activation.mark_good(store, "iris") == activation.read(store, "iris")
    assert done(store) == [("activate", "1.0.0"), ("mark good", "1.0.0")]


def test_mark_good_and_deactivate_need_an_active_version(store):
    for name in ("iris", "wine"):
        with pytest.raises(NotFound):
            activation.mark_good(store, name)
        with pytest.raises(NotFound):
            activation.deactivate(store, name)


def test_roll_back_returns_to_the_version_before_and_its_state(store):
    activate(store, "1.0.0")
    activation.mark_good(store, "iris")
    activate(store, "2.0.0")
    assert in_short(roll_back(store)) == ("1.0.0", None, "good")
    assert done(store)[-1] == ("roll back", "1.0.0")
    assert store.receipts()[-1].self_test["rows"] == 5


def test_a_second_roll_back_refuses_instead_of_returning_to_what_was_left(store):
    activate(store, "1.0.0")
    activate(store, "2.0.0")
    roll_back(store)
    with pytest.raises(NotFound, match="no previous version"):
        roll_back(store)
    assert activation.read(store, "iris").active == "1.0.0"


def test_roll_back_passes_over_a_version_that_was_never_marked_good_when_a_good_one_is_there(store):
    activate(store, "1.0.0")
    activation.mark_good(store, "iris")
    activate(store, "2.0.0")
    assert in_short(activate(store, "3.0.0")) == ("3.0.0", "1.0.0", "probation")
    assert in_short(roll_back(store)) == ("1.0.0", None, "good")


def test_without_marks_roll_back_returns_to_what_served_just_before(store):
    for version in VERSIONS:
        activate(store, version)
    assert roll_back(store).active == "2.0.0"


def test_returning_to_the_good_version_by_name_keeps_the_one_that_was_left_as_way_back(store):
    activate(store, "1.0.0")
    activation.mark_good(store, "iris")
    activate(store, "2.0.0")
    assert in_short(activate(store, "1.0.0")) == ("1.0.0", "2.0.0", "probation")


def test_roll_back_runs_the_self_test_and_stays_when_it_fails(store):
    activate(store, "1.0.0")
    activate(store, "2.0.0")

    def fails(folder):
        raise SelfTestFailed("self-test", f"wrong in {folder.name}", "")

    with pytest.raises(SelfTestFailed, match=r"wrong in 1\.0\.0"):
        activation.roll_back(store, "iris", fails)
    assert activation.read(store, "iris").active == "2.0.0"
    assert store.receipts()[-1].outcome == "refused"


def test_roll_back_to_a_removed_version_says_that_it_was_removed(store):
    activate(store, "1.0.0")
    activate(store, "2.0.0")
    store.remove("iris", "1.0.0")
    with pytest.raises(NotFound, match=r"1\.0\.0, the previous version, was removed"):
        roll_back(store)


def test_roll_back_of_an_unknown_model_is_not_found(store):
    with pytest.raises(NotFound, match="no such model"):
        activation.roll_back(store, "wine", self_test)


def test_a_deactivated_model_can_be_rolled_back_to_what_served(store):
    activate(store, "1.0.0")
    activation.mark_good(store, "iris")
    assert in_short(activation.deactivate(store, "iris")) == (None, "1.0.0", "probation")
    assert in_short(roll_back(store)) == ("1.0.0", None, "good")


def test_a_deactivated_model_can_be_activated_again(store):
    activate(store, "1.0.0")
    activation.deactivate(store, "iris")
    assert in_short(activate(store, "2.0.0")) == ("2.0.0", "1.0.0", "probation")
    activation.deactivate(store, "iris")
    assert in_short(activate(store, "2.0.0")) == ("2.0.0", None, "probation")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"active": 1}', b'{"novelty": 1}', b"\xff"])
def test_a_damaged_record_is_a_store_error_not_a_guess(store, content):
    activate(store, "1.0.0")
    activation.path(store, "iris").write_bytes(content)
    with pytest.raises(StoreError, match=r"activation\.json"):
        activation.read(store, "iris")
    with pytest.raises(StoreError):
        store.remove("iris", "1.0.0")


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("table", "8.0.0 differs from 1.0.0: it has no input 'features'.*--inputs-changed.*inputs_changed = true"),
        ("classifier", "its task is classification instead of regression"),
    ],
)
def test_a_version_with_other_inputs_or_answers_goes_live_only_where_it_is_meant(
    store, tmp_path, make_bundle, kind, match
):
    store.install(make_bundle(tmp_path, version="8.0.0", kind=kind))
    before = activate(store, "1.0.0")
    with pytest.raises(InputsChanged, match=match):
        activate(store, "8.0.0")
    assert activation.read(store, "iris") == before
    assert in_short(activate(store, "8.0.0", inputs_changed=True)) == ("8.0.0", "1.0.0", "probation")
    assert in_short(roll_back(store)) == ("1.0.0", None, "probation")


def test_only_the_active_version_is_compared_with_and_only_if_it_can_be_read(store, tmp_path, make_bundle):
    store.install(make_bundle(tmp_path, version="8.0.0", kind="table"))
    assert in_short(activate(store, "8.0.0")) == ("8.0.0", None, "probation")
    assert activate(store, "8.0.0").active == "8.0.0"
    (store.folder("iris", "8.0.0") / "manifest.json").write_text("{")
    assert activate(store, "1.0.0").active == "1.0.0"


def test_a_version_that_became_active_during_the_self_test_is_compared_with_too(store, tmp_path, make_bundle):
    store.install(make_bundle(tmp_path, version="8.0.0", kind="table"))
    activate(store, "1.0.0")

    def meanwhile(folder):
        activate(store, "8.0.0", inputs_changed=True)
        return self_test(folder)

    with pytest.raises(InputsChanged, match=r"2\.0\.0 differs from 8\.0\.0"):
        activation.activate(store, "iris", "2.0.0", meanwhile)
    assert activation.read(store, "iris").active == "8.0.0"
