"""Which arm of an experiment answers a request: by its key, so that a caller meets one version, or by chance.

Pure: no clock, no random number and no file is asked here. The hash is SHA-256 of salt, NUL and key: Python's own
hash() differs by process, and a CRC is linear, so that two experiments would choose the same keys.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

Share = tuple[str, float]
"""(version, share of the requests, 0 to 1)."""

T = TypeVar("T")

_BYTES = 8  # of a digest, which are a number below 2^64
_ALWAYS = b"\xff" * 33  # greater than any digest


class Router:
    """The arms of one experiment. Safe in any thread: nothing changes.

    Two arms have one threshold on one number: a key goes to the second arm while its number is below that arm's share.
    A larger share so moves keys to the second arm only, and a smaller one only back. More arms are chosen by weighted
    rendezvous (Thaler and Ravishankar 1998; weights: Schindelhauer and Schomaker 2005), the greatest of
    -share / ln(number of the arm), which moves as few keys as can be when shares change.
    """

    def __init__(self, salt: str, shares: Sequence[Share]) -> None:
        """`shares` begin with the version that answers without an experiment; together they are 1. `salt` is random."""
        self._salt = salt
        self._shares = list(shares)

    def pick(self, key: str, draw: float) -> str:
        """Return the version that answers a request with `key`; one without a key ("") goes by `draw`, in [0, 1)."""
        return self.chooser({version: version for version, _ in self._shares}, lambda: draw)(key)

    def chooser(self, answering: Mapping[str, T], draw: Callable[[], float]) -> Callable[[str], T]:
        """Return pick() for many requests: a function from a key to what `answering` has for the version.

        `draw` gives a number in [0, 1) for each request without a key.
        """
        if len(self._shares) > 2:
            return self._of_several(answering, draw)
        first, second = answering[self._shares[0][0]], answering[self._shares[-1][0]]
        share = self._shares[1][1] if len(self._shares) > 1 else 0.0
        prefix, limit, sha256 = f"{self._salt}\0".encode(), _limit(share), hashlib.sha256

        def choose(key: str) -> T:  # asked for every request: nothing is called here that need not be
            if not key:
                return second if draw() < share else first
            return second if sha256(prefix + _raw(key)).digest() < limit else first

        return choose

    def _of_several(self, answering: Mapping[str, T], draw: Callable[[], float]) -> Callable[[str], T]:
        """Return the chooser of more than two arms."""
        salt = self._salt
        weighted = [(share, f"{salt}\0{one}\0".encode(), answering[one]) for one, share in self._shares if share > 0]
        # By chance: from the second arm on; what is beyond the last bound is the first arm's.
        first, *others = ((answering[version], share) for version, share in self._shares)
        bounds = list(zip(accumulate(share for _, share in others), (one for one, _ in others), strict=True))

        def choose(key: str) -> T:
            if not key:
                number = draw()
                return next((one for bound, one in bounds if number < bound), first[0])
            raw = _raw(key)
            return max(weighted, key=lambda arm: _score(arm[0], hashlib.sha256(arm[1] + raw).digest()))[2]

        return choose


def _raw(key: str) -> bytes:
    """Return a key's bytes: UTF-8, and halves of surrogate pairs, which are none, as what they are."""
    try:
        return key.encode()
    except UnicodeEncodeError:
        return key.encode("utf-8", "surrogatepass")


def _limit(share: float) -> bytes:
    """Return what the digests of a share of all keys are below: bytes compare as the numbers that begin them."""
    threshold = int(share * 2 ** (8 * _BYTES))
    return threshold.to_bytes(_BYTES, "big") if share < 1 else _ALWAYS


def _score(share: float, digest: bytes) -> float:
    """Return an arm's weighted rendezvous score of a key; 52 bits of the digest, so that no number is 0 or 1."""
    number = (int.from_bytes(digest[:_BYTES], "big") >> 12) + 0.5
    return -share / math.log(number / 2**52)
