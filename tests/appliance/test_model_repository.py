"""Following the store: what serves is what it says, and a version that cannot load leaves the old one serving."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from appliance import pinned, repository
from appliance.errors import BundleRefused, Misuse, NotFound, NotReady, Overloaded
from appliance.inference.selftest import self_test
from appliance.repository import ModelRepository
from appliance.store import activation
from appliance.store.versions import Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "state")


@pytest.fixture
def go_live(store, make_bundle, tmp_path):
    """Install and activate a version."""

    def go_live(version: str, name: str = "iris") -> None:
        store.install(make_bundle(tmp_path, name, version))
        activation.activate(store, name, version, self_test)

    return go_live


def _answer(models: ModelRepository, *which: str) -> float:
    loaded = models.get(*which)
    return float(loaded.session.run({"features": np.zeros((1, 4), np.float32)})[0][0])


def test_active_version_answers_and_the_next_one_after_a_switch(store, go_live):
    go_live("1.0.0")
    models = ModelRepository(store)
    models.refresh()
    assert _answer(models) == 100
    go_live("2.0.0")
    models.refresh()
    assert _answer(models) == 200
    activation.roll_back(store, "iris", self_test)
    models.refresh()
    assert _answer(models) == 100


def test_request_keeps_its_version_to_the_end(store, go_live):
    go_live("1.0.0")
    models = ModelRepository(store)
    models.refresh()
    held = models.get("iris")
    go_live("2.0.0")
    models.refresh()
    assert (held.version, models.get("iris").version) == ("1.0.0", "2.0.0")
    assert held.session.run({"features": np.zeros((1, 4), np.float32)})[0][0] == 100


def test_old_version_keeps_serving_when_the_new_one_cannot_load(store, go_live):
    go_live("1.0.0")
    models = ModelRepository(store)
    models.refresh()
    told = []
    models.switched = told.append
    go_live("2.0.0")
    (store.folder("iris", "2.0.0") / "model.onnx").write_bytes(b"damaged")
    models.refresh()
    assert _answer(models) == 100
    served = models.served()[0]
    assert (served.wanted, served.loaded.version) == ("2.0.0", "1.0.0")
    assert "model.onnx" in str(served.problem)
    assert told == [served]


def test_version_that_could_not_load_is_tried_again(store, go_live, monkeypatch):
    go_live("1.0.0")
    content = store.folder("iris", "1.0.0") / "model.onnx"
    good = content.read_bytes()
    content.write_bytes(b"damaged")
    models = ModelRepository(store)
    models.refresh()
    with pytest.raises(NotReady):
        models.get("iris")
    content.write_bytes(good)
    models.refresh()
    with pytest.raises(NotReady):
        models.get("iris")  # not at every look: loading costs
    monkeypatch.setattr(repository, "RETRY_SECONDS", 0.0)
    models.refresh()
    assert _answer(models) == 100


def test_follow_notices_a_switch_by_itself(store, go_live):
    go_live("1.0.0")
    models = ModelRepository(store)
    models.refresh()
    stop = threading.Event()
    thread = threading.Thread(target=models.follow, args=(stop, 0.02))
    thread.start()
    go_live("2.0.0")
    deadline = time.monotonic() + 20
    while models.get("iris").version != "2.0.0" and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join(10)
    assert models.get("iris").version == "2.0.0"


def test_inactive_versions_answer_when_named_and_stay_loaded(store, go_live, monkeypatch):
    for version in ("1.0.0", "2.0.0", "3.0.0", "4.0.0"):
        go_live(version)
    models = ModelRepository(store, pinned_versions=2)
    models.refresh()
    assert _answer(models, "iris", "1.0.0") == 100
    first = models.get("iris", "1.0.0")
    assert _answer(models, "iris", "2.0.0") == 200
    for _ in range(3):  # named in turn, none is loaded again
        with pytest.raises(Overloaded, match=r"iris 3\.0\.0.*2 such versions.*pinned_versions"):
            models.get("iris", "3.0.0")
        assert models.get("iris", "1.0.0") is first
    assert models.get("iris", "4.0.0") is models.get("iris")
    monkeypatch.setattr(pinned, "IDLE_SECONDS", 0.0)
    assert _answer(models, "iris", "3.0.0") == 300
    assert models.get("iris", "1.0.0") is first  # the other one was idle longer


def test_version_that_cannot_load_is_not_tried_at_each_request(store, go_live, monkeypatch):
    for version in ("1.0.0", "2.0.0"):
        go_live(version)
    model = store.folder("iris", "1.0.0") / "model.onnx"
    good = model.read_bytes()
    model.write_bytes(b"damaged")
    models = ModelRepository(store)
    models.refresh()
    for content in (b"damaged", good):
        model.write_bytes(content)
        with pytest.raises(BundleRefused, match=r"model\.onnx"):
            models.get("iris", "1.0.0")
        models.refresh()
    monkeypatch.setattr(pinned, "REFUSED_SECONDS", 0.0)
    models._pinned.forget()
    assert _answer(models, "iris", "1.0.0") == 100


def test_removed_version_is_let_go(store, go_live):
    go_live("1.0.0")
    go_live("2.0.0")
    models = ModelRepository(store)
    models.refresh()
    assert _answer(models, "iris", "1.0.0") == 100
    store.remove("iris", "1.0.0")
    models.refresh()
    with pytest.raises(NotFound):
        models.get("iris", "1.0.0")


def test_deactivated_model_serves_nothing(store, go_live):
    go_live("1.0.0")
    models = ModelRepository(store)
    models.refresh()
    activation.deactivate(store, "iris")
    models.refresh()
    with pytest.raises(NotReady, match="no active version"):
        models.get("iris")


def test_unknown_model_and_version_are_named(store, go_live):
    go_live("1.0.0")
    models = ModelRepository(store)
    models.refresh()
    with pytest.raises(NotFound, match=r"Request for unknown model: 'irys'.*iris"):
        models.get("irys")
    with pytest.raises(NotFound, match=r"9\.9\.9"):
        models.get("iris", "9.9.9")


def test_default_model_is_the_only_active_one_or_the_configured(store, go_live):
    models = ModelRepository(store)
    models.refresh()
    with pytest.raises(NotReady, match="none is active"):
        models.get()
    go_live("1.0.0")
    models.refresh()
    assert models.get().name == "iris"
    go_live("1.0.0", "wine")
    models.refresh()
    with pytest.raises(Misuse, match="2 are active"):
        models.get()
    chosen = ModelRepository(store, default="wine")
    chosen.refresh()
    assert chosen.get().name == "wine"


def test_store_that_cannot_be_read_does_not_stop_serving(store, go_live):
    go_live("1.0.0")
    models = ModelRepository(store)
    models.refresh()
    record: Path = activation.path(store, "iris")
    record.write_text("{ half a record")
    models.refresh()
    assert _answer(models) == 100
    assert "activation.json" in str(models.served()[0].problem)


class Several:
    """Roles as a test sets them; it rewrites a file to tell that they have changed."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.of: dict[str, str | None] = {}

    def records(self, store: Store, name: str) -> list[Path]:
        return [activation.path(store, name), self.file]

    def wanted(self, store: Store, name: str) -> dict[str, str | None]:
        return {repository.ACTIVE: activation.read(store, name).active} | self.of

    def routing(self, store: Store, name: str) -> None:
        return None

    def set(self, **of: str | None) -> None:
        self.of = of
        self.file.write_text("{}" + " " * len(self.file.read_text() if self.file.exists() else ""))


@pytest.fixture
def several(store, go_live) -> Several:
    """Return the roles of a model whose versions 1.0.0 to 3.0.0 are installed, the last one active."""
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        go_live(version)
    return Several(store.state_dir / "roles")


def test_versions_with_other_roles_answer_beside_the_active_one(store, several):
    several.set(canary="1.0.0", shadow="2.0.0")
    models = ModelRepository(store, pinned_versions=0, roles=several)
    models.refresh()
    roles = models.roles("iris")
    assert {role: served.loaded.version for role, served in roles.items()} == {
        "active": "3.0.0", "canary": "1.0.0", "shadow": "2.0.0",
    }  # fmt: skip
    assert (_answer(models), _answer(models, "iris", "1.0.0"), _answer(models, "iris", "2.0.0")) == (300, 100, 200)
    assert models.get("iris", "1.0.0") is roles["canary"].loaded  # not loaded once more
    assert [served.name for served in models.served("shadow")] == ["iris"]
    assert models.served("split") == []


def test_a_version_that_has_a_role_makes_no_room_for_those_that_requests_name(store, several, monkeypatch):
    monkeypatch.setattr(pinned, "IDLE_SECONDS", 0.0)
    several.set(canary="1.0.0")
    models = ModelRepository(store, pinned_versions=1, roles=several)
    models.refresh()
    canary = models.get("iris", "1.0.0")
    for _ in range(2):
        assert _answer(models, "iris", "2.0.0") == 200
        assert models.get("iris", "1.0.0") is canary
        models.refresh()


def test_a_pinned_version_that_is_given_a_role_counts_as_pinned_no_more(store, several):
    models = ModelRepository(store, pinned_versions=1, roles=several)
    models.refresh()
    models.get("iris", "1.0.0")
    several.set(canary="1.0.0")
    models.refresh()
    assert models.get("iris", "1.0.0") is models.roles("iris")["canary"].loaded
    assert _answer(models, "iris", "2.0.0") == 200  # there is room for it


def test_a_version_is_not_loaded_again_when_it_changes_its_role(store, several):
    several.set(canary="2.0.0")
    models = ModelRepository(store, roles=several)
    models.refresh()
    canary = models.roles("iris")["canary"].loaded
    activation.activate(store, "iris", "2.0.0", self_test)
    several.set()
    models.refresh()
    assert models.get("iris") is canary
    assert set(models.roles("iris")) == {"active"}


def test_a_role_whose_version_cannot_load_has_none_while_the_active_one_serves(store, several):
    several.set(canary="1.0.0")
    models = ModelRepository(store, roles=several)
    models.refresh()
    told = []
    models.switched = told.append
    (store.folder("iris", "2.0.0") / "model.onnx").write_bytes(b"damaged")
    several.set(canary="2.0.0")
    models.refresh()
    canary = models.roles("iris")["canary"]
    assert (canary.wanted, canary.loaded) == ("2.0.0", None)
    assert "model.onnx" in str(canary.problem)
    assert _answer(models) == 300
    assert canary in told
    several.set()
    models.refresh()
    assert told[-1] == repository.Served("iris", None, None, None, "canary")


def test_a_record_of_roles_that_cannot_be_read_changes_no_role(store, several):
    several.set(canary="1.0.0")
    models = ModelRepository(store, roles=several)
    models.refresh()
    activation.path(store, "iris").write_text("{ half a record")
    models.refresh()
    assert (_answer(models), models.roles("iris")["canary"].loaded.version) == (300, "1.0.0")
