"""The way of a bundle from a source into service: offered, fetched, compared, verified, installed, activated.

Every step before the activation leaves what serves as it is, and the store's own steps survive a power cut.
"""

import hashlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from appliance import __version__
from appliance.bundle import archive, keys
from appliance.config import Config
from appliance.errors import ApplianceError, BundleRefused, ConfigError, NotReady, Refused, StoreError
from appliance.pull import record
from appliance.pull.deadline import Deadline
from appliance.pull.offers import Fault, Listing, Offer, in_turn
from appliance.pull.record import Verdict
from appliance.pull.sources import BundleSource, Document, open_source
from appliance.store import activation, durable, marks, receipts
from appliance.store.activation import SelfTest
from appliance.store.marks import Offered
from appliance.store.versions import SPARE_BYTES, Store

What = Literal["activated", "installed", "unchanged", "wanted", "skipped", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class PullResult:
    """What became of one offer; `error` says why it was refused or failed.

    `unchanged`: it is here, or an operator decided about it; `skipped`: a model that this host does not want.
    """

    label: str
    """What the source calls it."""
    what: What
    model: str = ""
    version: str = ""
    sha256: str = ""
    error: ApplianceError | None = None


def pull(config: Config, self_test: SelfTest, *, again: bool = False, dry_run: bool = False) -> list[PullResult]:
    """Bring this host to what `[pull] source` offers; return what became of each offer.

    `again` tries also what was refused before; `dry_run` only says what would be done (`wanted`). One bundle's failure
    does not keep the others from coming. Raises ConfigError when nothing may be pulled, or no model is wanted here;
    else what the source raises.
    """
    if not config.pull.source:
        raise ConfigError("pull", "[pull] source is not set: nothing is pulled", "name a folder or an address there")
    if not config.store.trusted_keys:
        found = "[store] trusted_keys is empty: anybody's bundle would be installed"
        raise ConfigError("pull", found, "name the public keys that sign your bundles")
    source = open_source(config.pull)
    puller = _Puller(config, source, self_test, again=again, dry_run=dry_run)
    with _alone(puller.folder, config.state_dir):
        return puller.run()


class _NotNewer(Refused):
    """An offer is not newer than what was here: told each time, since the mark may move; nothing to remember."""


class _Puller:
    """One run."""

    def __init__(
        self, config: Config, source: BundleSource, self_test: SelfTest, *, again: bool, dry_run: bool
    ) -> None:
        self.folder = config.state_dir / "pull"
        self._config, self._source, self._self_test = config, source, self_test
        self._again, self._dry_run = again, dry_run
        self._store = Store.of(config)
        self._circumstances = _circumstances(config)
        self._record = record.read(self.folder, config.pull.source)

    def run(self) -> list[PullResult]:
        """Process the offers of the source, one after the other."""
        deadline = Deadline(self._config.pull.deadline)
        listing = self._listing(deadline)
        offers = listing.offers
        self._check_wanted(offers)
        offered = {offer.sha256 for offer in offers}
        verdicts = {sha256: verdict for sha256, verdict in self._record.verdicts.items() if sha256 in offered}
        self._keep(verdicts=verdicts)
        self._sweep(offered)
        outcomes = [_faulty(fault) for fault in listing.faults]
        turns = in_turn(offers)
        for place, turn in enumerate(turns):
            # Each has an equal share of what is left: one that trickles does not keep the others from coming.
            outcomes += self._take_newest(turn, deadline, len(turns) - place)
        return outcomes

    def _take_newest(self, turn: list[Offer], deadline: Deadline, remaining: int) -> list[PullResult]:
        """Act on the versions of one model that are offered, newest first, until one is not refused.

        A bundle that nobody signed does not keep the one below it away by its number.
        """
        outcomes: list[PullResult] = []
        for offer in turn:
            outcome = self._take(offer, deadline, remaining)
            if outcomes and (outcome.what == "unchanged" or isinstance(outcome.error, _NotNewer)):
                break  # older ones lie in every folder
            outcomes.append(outcome)
            if outcome.what != "refused":
                break
        return outcomes

    def _listing(self, deadline: Deadline) -> Listing:
        """Return the offers of the source, and remember its state (ETag)."""
        fresh = self._source.document(self._record.etag, deadline)
        document = fresh or Document(self._record.document, self._record.etag)
        listing = self._source.offers(document)
        if fresh:
            kept = (document.content, document.etag) if document.etag else (b"", "")
            self._keep(document=kept[0], etag=kept[1])
        return listing

    def _check_wanted(self, offers: list[Offer]) -> None:
        """Raise ConfigError where nothing could ever be taken: a host without models, and none is named."""
        if offers and not self._config.pull.models and not self._store.names():
            known = sorted({offer.name for offer in offers if offer.name})[:10]
            names = ", ".join(f'"{name}"' for name in known or ["NAME"])
            found = "no model is installed here, and [pull] models names none that may come"
            raise ConfigError("pull", found, f"set [pull] models = [{names}]")

    def _take(self, offer: Offer, deadline: Deadline, remaining: int) -> PullResult:
        """Act on an offer, where something is left to do; it is the first of so many that are `remaining`."""
        known = self._record.verdicts.get(offer.sha256)
        if known and not offer.name:
            offer = msgspec.structs.replace(offer, name=known.model, version=known.version)
        try:
            verdict = self._refused_before(offer, known) or (self._standing(offer) if offer.name else None)
            if verdict:
                return verdict
            if self._dry_run:
                return _outcome(offer, "wanted")
            self._check_room(offer)
            path = self._source.fetch(offer, self._partial(offer), deadline.share(remaining))
        except Refused as error:
            # Not remembered: the source may repair it without notice, such as a file that was not yet copied whole.
            self._partial(offer).unlink(missing_ok=True)
            return _outcome(offer, "refused", error)
        except (ApplianceError, OSError) as error:
            return _failed(offer, error)
        return self._judge(offer, path)

    def _judge(self, offer: Offer, path: Path) -> PullResult:
        """Act on an offer that was fetched to `path`."""
        named = offer
        try:
            named = _identify(offer, path)
            outcome = self._standing(named) or _outcome(named, self._apply(named, path))
        except _NotNewer as error:
            outcome = _outcome(named, "refused", error)
        except Refused as error:
            why = error.found
            self._settle(named, Verdict(named.name, named.version, why, receipts.now(), self._circumstances))
            return _outcome(named, "refused", error)
        except (ApplianceError, OSError) as error:
            return _failed(named, error)
        self._settle(named, Verdict(named.name, named.version))
        return outcome

    def _refused_before(self, offer: Offer, known: Verdict | None) -> PullResult | None:
        """Return the outcome of an offer that was refused and would be again; None for another."""
        if known is None or not known.refused or self._again or known.circumstances != self._circumstances:
            return None
        found = f"refused on {known.when}: {known.refused}"
        error = Refused(f"pull {offer}", found, "try again: appliance pull --again")
        return PullResult(str(offer), "refused", known.model, known.version, offer.sha256, error)

    def _standing(self, offer: Offer) -> PullResult | None:
        """Return the outcome of an offer on which nothing is to be done here, None for another.

        Raises Refused when it is not newer than the model's mark, StoreError.
        """
        wanted = self._config.pull
        installed = self._store.versions(offer.name)
        if not installed and offer.name not in wanted.models:
            return _outcome(offer, "skipped")
        mark = self._store.mark(offer.name)
        try:
            verdict = marks.judge(offer.name, offer.version, self._offered(offer), mark)
        except Refused as error:
            if mark and mark.version != offer.version == activation.read(self._store, offer.name).active:
                verdict = "closed"  # an operator went back to it, and the source did too
            else:
                raise _NotNewer(error.tried, error.found, error.next_step) from error
        if verdict == "closed" or (verdict == "open" and offer.version in installed and not wanted.activate):
            return _outcome(offer, "unchanged")
        return None

    def _offered(self, offer: Offer) -> Offered:
        return Offered(offer.sha256, self._config.pull.allow_older)

    def _apply(self, offer: Offer, path: Path) -> Literal["installed", "activated"]:
        """Install a fetched file and, where wanted, activate it; the store asks who signed it."""
        try:
            self._store.install(path, why=self._why, offered=self._offered(offer))
        except Refused as error:
            with self._store.writing(f"note the refusal of {offer}"):
                why = f"{self._why}: {error.found}"
                self._store.note("install", offer.name, offer.version, outcome="refused", why=why)
            raise
        if not self._config.pull.activate:
            return "installed"
        changed = self._config.pull.inputs_changed
        now = activation.activate(
            self._store,
            offer.name,
            offer.version,
            self._self_test,
            why=self._why,
            undecided=True,
            inputs_changed=changed,
        )
        return "activated" if now.active == offer.version else "installed"

    @property
    def _why(self) -> str:
        return f"pulled from {self._config.pull.source}"

    def _check_room(self, offer: Offer) -> None:
        """Raise Refused or StoreError for an offer that cannot be fetched, before its first byte."""
        most = self._config.pull.max_bytes
        if offer.size > most:
            raise Refused(f"pull {offer}", f"it has {offer.size} bytes, more than {most}", "raise [pull] max_bytes")
        free, need = shutil.disk_usage(self.folder).free, offer.size + SPARE_BYTES
        if need > free:
            found = f"{self.folder} has {free} bytes free, {need} are needed"
            raise StoreError(f"pull {offer}", found, "free some disk space: appliance remove NAME VERSION")

    def _partial(self, offer: Offer) -> Path:
        return self.folder / f"{offer.sha256}.partial"

    def _settle(self, offer: Offer, verdict: Verdict) -> None:
        """Remember what became of an offer; a download that was begun for it is of no use any more."""
        self._keep(verdicts={**self._record.verdicts, offer.sha256: verdict})
        self._partial(offer).unlink(missing_ok=True)

    def _keep(self, **changes: object) -> None:
        """Write the record, unless nothing changed in it."""
        changed = msgspec.structs.replace(self._record, **changes)
        if changed != self._record and not self._dry_run:
            record.write(self.folder, changed)
        self._record = changed

    def _sweep(self, offered: set[str]) -> None:
        """Delete downloads that were begun and are no longer offered, and what a power cut left of a record."""
        for path in [*self.folder.glob("*.partial"), *self.folder.glob(".*.partial-*")]:
            if path.stem not in offered and not self._dry_run:
                path.unlink(missing_ok=True)


def _outcome(offer: Offer, what: What, error: ApplianceError | None = None) -> PullResult:
    return PullResult(str(offer), what, offer.name, offer.version, offer.sha256, error)


def _failed(offer: Offer, error: ApplianceError | OSError) -> PullResult:
    if isinstance(error, OSError):
        error = StoreError(f"pull {offer}", str(error), "see: appliance doctor")
    return _outcome(offer, "failed", error)


def _faulty(fault: Fault) -> PullResult:
    what: What = "refused" if isinstance(fault.error, Refused) else "failed"
    return PullResult(fault.label, what, fault.model, fault.version, error=fault.error)


def _identify(offer: Offer, path: Path) -> Offer:
    """Return the offer with the model that its file claims to hold; only the install asks who signed it.

    Nothing but the table and the manifest is read, both bounded. Raises BundleRefused when the index named another.
    """
    with archive.opened(path, most_bytes=sys.maxsize) as bundle:
        held = (bundle.manifest.name, bundle.manifest.version)
    if offer.name and (offer.name, offer.version) != held:
        raise BundleRefused(f"pull {offer}", f"the file holds {' '.join(held)}", "write the index again")
    return msgspec.structs.replace(offer, name=held[0], version=held[1])


def _circumstances(config: Config) -> str:
    """Return a digest of what may turn a refusal into an acceptance. Raises NotFound when a key cannot be read."""
    parts = [__version__, str(config.pull.max_bytes), str(config.store.max_bundle_bytes)]
    parts += ["inputs changed"] * config.pull.inputs_changed
    digests = [hashlib.sha256(keys.read_file(Path(file))).hexdigest() for file in config.store.trusted_keys]
    return hashlib.sha256("\n".join([*parts, *sorted(digests)]).encode()).hexdigest()


@contextmanager
def _alone(folder: Path, state_dir: Path) -> Iterator[None]:
    """Be the only pull on this host within; an OSError within becomes a StoreError."""
    with durable.reported("pull"):
        durable.make_folder(state_dir)
        durable.make_folder(folder, within=state_dir)
        with durable.locked(folder / ".lock", 0, within=state_dir) as held:
            if not held:
                raise NotReady("pull", "another pull is running on this host", "let it end")
            yield
