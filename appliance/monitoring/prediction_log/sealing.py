"""The sealing keys of a model's log: only the current ones are kept; earlier ones are destroyed.

`appliance log init --seal` makes the model's key and shows it once; kept off the host it checks every seal. On the host
stands how far the key has gone, in STATE_DIR/log/NAME/seal.json; every writer takes its own first key from it, and
moves the model's on, so that no writer that comes later knows an earlier one's. A writer's own stands in its folder.
"""

import secrets
from pathlib import Path

import msgspec

from appliance import nofollow
from appliance.errors import Refused, StoreError
from appliance.monitoring.prediction_log import tree
from appliance.monitoring.prediction_log.segments import FOLDER, Writer
from appliance.store import durable

_FILE = "seal.json"
LOCK_SECONDS = 10.0


class State(msgspec.Struct):
    """A key and how many came before it; for a writer also the model's key that its first one was made of."""

    index: int
    key: str
    base: int = 0


def init(state_dir: Path, model: str) -> str:
    """Make a model's sealing key and return it: 64 hex digits, which stand nowhere else from now on.

    Raises Refused where there is one: the seals so far could be checked by nobody who has the new one.
    """
    folder = state_dir / FOLDER / model
    with durable.reported(f"make a sealing key for {model}"):
        durable.make_folder(folder, within=state_dir)
        with durable.locked(folder / ".seal.lock", LOCK_SECONDS, within=state_dir):
            if _read(folder / _FILE, state_dir):
                raise Refused(
                    f"make a sealing key for {model}",
                    "it has one",
                    "keep using it; or archive the log and delete its folder",
                )
            key = secrets.token_hex(32)
            _write(folder / _FILE, State(0, key), state_dir)
    return key


class WriterKey:
    """The sealing key of one writer. Its file is replaced before a key is used no more."""

    def __init__(self, writer: Writer) -> None:
        """Read, or take from the model's key, the key of `writer`; without a model's key there is none."""
        self._writer = writer
        self._file = writer.folder / _FILE
        self.state = _read(self._file, writer.state_dir) or self._first()

    def __bool__(self) -> bool:
        return self.state is not None

    def mac(self, chain: bytes) -> tuple[str, int]:
        """Return the code of a chain as 64 hex digits, and the key's index."""
        assert self.state is not None  # noqa: S101 - asked only where there is one
        return tree.mac(bytes.fromhex(self.state.key), chain).hex(), self.state.index

    def advance(self) -> None:
        """Replace the key by the next one."""
        if self.state is not None:
            state = self.state
            following = State(state.index + 1, tree.next_key(bytes.fromhex(state.key)).hex(), state.base)
            _write(self._file, following, self._writer.state_dir)
            self.state = following

    def _first(self) -> State | None:
        """Take this writer's first key, and move the model's on."""
        state_dir, folder = self._writer.state_dir, self._writer.folder.parent.parent
        if _read(folder / _FILE, state_dir) is None:
            return None
        with durable.locked(folder / ".seal.lock", LOCK_SECONDS, within=state_dir):
            model = _read(folder / _FILE, state_dir)
            if model is None:
                return None
            key = bytes.fromhex(model.key)
            own = State(0, tree.writer_key(key, str(self._writer)).hex(), model.index)
            _write(self._file, own, state_dir)
            _write(folder / _FILE, State(model.index + 1, tree.next_key(key).hex()), state_dir)
        return own


def _read(path: Path, state_dir: Path) -> State | None:
    try:
        return msgspec.json.decode(nofollow.read(path, within=state_dir), type=State)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise StoreError(f"read the sealing key {path}", str(error), "see docs/prediction-log.md") from error


def _write(path: Path, state: State, state_dir: Path) -> None:
    """Replace a key; who may read the log may not read it."""
    durable.write_atomically(path, msgspec.json.encode(state), within=state_dir, mode=0o600)
