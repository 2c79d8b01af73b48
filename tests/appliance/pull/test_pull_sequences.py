"""Any sequence of offers, pulls, operators' decisions and power cuts: nothing goes back, no decision is undone."""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from appliance.bundle.manifest import version_order
from appliance.config import Config, PullConfig, StoreConfig
from appliance.errors import ApplianceError, NotReady
from appliance.pull import puller, sources
from appliance.pull.offers import Offer, encode_index
from appliance.store import activation
from appliance.store.versions import Store

VERSIONS = ["1.0.0-rc.1", "1.0.0", "1.0.0+b", "1.1.0", "2.0.0-rc.2", "2.0.0-rc.11", "2.0.0"]
OFFERED = st.sampled_from([*VERSIONS, None])
ALMOST_ALWAYS = st.sampled_from([True, True, True, False])
LOWEST = version_order("0.0.0-0")


class Passed(msgspec.Struct):
    """What a self-test says that passes at once: the graphs are not what is tried here."""

    rows: int = 1


class Sequences(RuleBasedStateMachine):
    """One host and one folder that it pulls from."""

    def __init__(self, bundles: dict[str, Path], key: Path, dies: Callable[[Callable[[], object], int], bool]) -> None:
        super().__init__()
        self.bundles, self.dies = bundles, dies
        self.place = tempfile.TemporaryDirectory()
        root = Path(self.place.name)
        self.source = root / "source"
        self.source.mkdir()
        self.store = Store(root / "state", trusted_keys=[str(key)])
        self.config = Config(
            store=StoreConfig(state_dir=str(root / "state"), trusted_keys=(str(key),)),
            pull=PullConfig(source=str(self.source), models=("iris",)),
        )
        self.highest = LOWEST
        """Precedence of the newest version ever installed, or of the one that was last taken as an older one."""
        self.decided = LOWEST
        """`highest` when an operator last decided something."""

    def teardown(self) -> None:
        self.place.cleanup()

    @property
    def active(self) -> str | None:
        return activation.read(self.store, "iris").active

    @initialize()
    def offer_nothing(self) -> None:
        self.offer(None)

    def offer(self, version: str | None) -> None:
        for path in self.source.glob("*.bundle"):
            path.unlink()
        listed: list[Offer] = []
        if version:
            (self.source / "it.bundle").hardlink_to(self.bundles[version])
            plain = sources.describe(self.source / "it.bundle", 1 << 30)
            listed = [Offer(plain.sha256, plain.size, plain.file, "iris", version)]
        (self.source / "index.json").write_bytes(encode_index(listed))

    @rule(version=OFFERED, activate=ALMOST_ALWAYS, keeps_record=ALMOST_ALWAYS)
    def pull(self, version: str | None, activate: bool, keeps_record: bool) -> None:
        self.offer(version)
        if not keeps_record:
            (self.store.state_dir / "pull" / "record.json").unlink(missing_ok=True)
        self.run(lambda: self.pull_once(activate=activate))

    @rule()
    def pull_the_same_again(self) -> None:
        self.run(self.pull_once)

    @rule(version=OFFERED, call=st.integers(0, 60))
    def pull_and_lose_power(self, version: str | None, call: int) -> None:
        self.offer(version)
        self.run(lambda: self.dies(self.pull_once, call))

    @rule(version=OFFERED)
    def pull_older(self, version: str | None) -> None:
        self.offer(version)
        outcomes = self.pull_once(allow_older=True)
        if outcomes and outcomes[0].what == "activated":
            self.highest = self.decided = version_order(outcomes[0].version)

    @rule(version=st.sampled_from(VERSIONS))
    def install_by_hand(self, version: str) -> None:
        self.store.install(self.bundles[version])
        self.highest = max(self.highest, version_order(version))

    @rule(version=st.sampled_from(VERSIONS))
    def activate_by_hand(self, version: str) -> None:
        self.decide(lambda: activation.activate(self.store, "iris", version, lambda _: Passed()))

    @rule()
    def roll_back(self) -> None:
        self.decide(lambda: activation.roll_back(self.store, "iris", lambda _: Passed()))

    @rule()
    def deactivate(self) -> None:
        self.decide(lambda: activation.deactivate(self.store, "iris"))

    @rule(version=st.sampled_from(VERSIONS))
    def remove(self, version: str) -> None:
        self.decide(lambda: self.store.remove("iris", version))

    @invariant()
    def what_is_active_is_installed(self) -> None:
        assert self.active is None or self.active in self.store.versions("iris")

    def pull_once(self, **changes: Any) -> list[puller.PullResult]:
        config = msgspec.structs.replace(self.config, pull=msgspec.structs.replace(self.config.pull, **changes))
        try:
            return puller.pull(config, lambda _: Passed())
        except NotReady:  # nothing else pulls here
            raise AssertionError("another pull was running") from None

    def run(self, work: Callable[[], object]) -> None:
        """Pull, and hold what became of it against what was decided."""
        before, installed = self.active, set(self.store.versions("iris"))
        work()
        new = set(self.store.versions("iris")) - installed
        assert installed <= set(self.store.versions("iris"))
        for version in new:
            assert version_order(version) > self.highest
        if self.active != before:
            assert self.active is not None
            order = version_order(self.active)
            assert order > self.decided
            assert order >= self.highest
        self.highest = max([self.highest, *map(version_order, new)])

    def decide(self, work: Callable[[], object]) -> None:
        """Do what an operator does; what is refused decides nothing."""
        try:
            work()
        except ApplianceError:
            return
        self.decided = self.highest


def test_no_sequence_goes_back_or_undoes_a_decision(signed, host, dies):
    bundles = {version: signed(version) for version in VERSIONS}
    assert len(set(itertools.starmap(lambda _, path: path.read_bytes(), bundles.items()))) == len(VERSIONS)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Sequences(bundles, host.key, dies),
        settings=settings(
            max_examples=50,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
        ),
    )
