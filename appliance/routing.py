"""Which arm of an experiment answers a request: by its key, so that a caller meets one version, or by chance.

Pure: no clock, no random number and no file is asked here. The hash is SHA-256 of salt, NUL and key: Python's own
hash() differs by process, and a CRC is linear, so that two experiments would choose the same keys.
"""

import hashlib
import math
from collections.abc import Sequence
from itertools import accumulate

Share = tuple[str, float]
"""(version, share of the requests, 0 to 1)."""

_UNITS = 2**64  # the first 8 bytes of a digest are a number below it


class Router:
    """The arms of one experiment. Safe in any thread: nothing changes.

    Two arms have one threshold on one number: a key goes to the second arm while its number is below that arm's share.
    A larger share so moves keys to the second arm only, and a smaller one only back. More arms are chosen by weighted
    rendezvous (Thaler and Ravishankar 1998; weights: Schindelhauer and Schomaker 2005), the greatest of
    -share / ln(number of the arm), which moves as few keys as can be when shares change.
    """

    def __init__(self, salt: str, shares: Sequence[Share]) -> None:
        """`shares` begin with the version that answers without an experiment; together they are 1. `salt` is random."""
        self.versions = [version for version, _ in shares]
        self._first = self.versions[0]
        self._second = self.versions[1] if len(shares) > 1 else self._first
        self._two = len(shares) <= 2
        self._share = shares[1][1] if len(shares) > 1 else 0.0
        self._threshold = int(self._share * _UNITS)
        self._prefix = f"{salt}\0".encode()
        self._weighted = [(version, share, f"{salt}\0{version}\0".encode()) for version, share in shares if share > 0]
        # From the second arm on; what is beyond the last bound is the first arm's.
        others = shares[1:]
        self._bounds = list(zip(accumulate(share for _, share in others), (one for one, _ in others), strict=True))

    def pick(self, key: str, draw: float) -> str:
        """Return the version that answers a request with `key`; one without a key ("") goes by `draw`, in [0, 1)."""
        if not key:
            return self._by_chance(draw)
        raw = key.encode("utf-8", "surrogatepass")
        if self._two:
            number = int.from_bytes(hashlib.sha256(self._prefix + raw).digest()[:8], "big")
            return self._second if number < self._threshold else self._first
        return max(self._weighted, key=lambda arm: _score(arm[1], hashlib.sha256(arm[2] + raw).digest()))[0]

    def _by_chance(self, draw: float) -> str:
        """Return the arm in whose part of [0, 1) `draw` is; the first arm has the last part."""
        if self._two:
            return self._second if draw < self._share else self._first
        return next((version for bound, version in self._bounds if draw < bound), self._first)


def _score(share: float, digest: bytes) -> float:
    """Return an arm's weighted rendezvous score of a key; 52 bits of the digest, so that no number is 0 or 1."""
    number = (int.from_bytes(digest[:8], "big") >> 12) + 0.5
    return -share / math.log(number / 2**52)
