"""Whether a version is worse than another, by sequential tests, which are valid at every look.

Pure: sums in, verdict out.

One formula serves the tests that count events. Where both versions are alike, an event falls to the canary with a
probability p that is known by design: its share of the requests, or 1/2 for pairs of which one version is right and the
other wrong. With k_B events in the canary, k_A elsewhere, and a Beta(1, 1) mixture over the other probabilities,

    log E = lbeta(1 + k_B, 1 + k_A) - lbeta(1, 1) - k_B log p - k_A log(1 - p)

By Ville's inequality E reaches 1/alpha with a chance of at most alpha while the versions are alike, however often one
looks (Robbins 1970; Lindon & Malek, NeurIPS 2022, arXiv:2011.03567). A step with another p multiplies: E = E of the
steps done x E of this step.

Means of what is not a count, as errors of numbers, have the confidence sequence of Waudby-Smith et al. 2021,
arXiv:2103.06476, equation 9, which holds asymptotically.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, lgamma, log, log1p, sqrt

ALPHA = 0.01
"""The chance that one test ever acts while the versions are alike."""
BOUND_ALPHA = 0.05
"""The chance that a bound that is shown is ever wrong."""
TUNED_FOR = 5000
"""Observations for which the confidence sequence is narrowest."""
LEAST_OF_MEANS = 100
"""Observations of each version before its mean counts: the confidence sequence of means holds asymptotically."""
_HALVINGS = 60


def log_evidence(canary: int, others: int, share: float) -> float:
    """Return log E for `canary` events in an arm with the probability `share` (above 0, below 1), and `others`."""
    beta = lgamma(1 + canary) + lgamma(1 + others) - lgamma(2 + canary + others)
    return beta - canary * log(share) - others * log1p(-share)


@dataclass(frozen=True, slots=True)
class Events:
    """Events that should fall to the canary with the probability `share`: failures, slow runs, lost pairs."""

    canary: int
    others: int
    share: float
    log_done: float = 0.0
    """log E of the steps that ended: the log_e of the last of them."""

    @property
    def log_e(self) -> float:
        """log E that the canary has more than its share.

        Evidence that it has less is left out, so that it never adds to a later turn for the worse: a smaller E is
        allowed at any time, since the inequality holds for it too.
        """
        if not self.canary + self.others:
            return self.log_done
        step = log_evidence(self.canary, self.others, self.share)
        return self.log_done + (step if self.are_more else min(step, 0.0))

    @property
    def are_more(self) -> bool:
        """Whether the canary has more of the events than its share."""
        return self.canary > self.share * (self.canary + self.others)

    def prove(self, alpha: float = ALPHA) -> bool:
        """Return whether the canary has more of the events than chance gives it."""
        return self.are_more and self.log_e >= -log(alpha)


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of trials: failures of requests, right answers of labelled rows."""

    events: int
    trials: int

    @property
    def point(self) -> float:
        """The share; 0 without a trial."""
        return self.events / self.trials if self.trials else 0.0

    def bounds(self, alpha: float = BOUND_ALPHA) -> tuple[float, float]:
        """Return between what the true rate is, with a chance of 1 - alpha at every look.

        The rates are kept that the evidence, with a Beta(1/2, 1/2) mixture, does not rule out.
        """
        if not self.trials:
            return 0.0, 1.0
        limit = -log(alpha)

        def is_out(rate: float) -> bool:
            return self._log_against(rate) > limit

        low = _edge(is_out, 0.0, self.point) if self.events else 0.0
        high = _edge(is_out, 1.0, self.point) if self.events < self.trials else 1.0
        return low, high

    def _log_against(self, rate: float) -> float:
        """Return log E against a true rate (above 0, below 1)."""
        hits, misses = self.events, self.trials - self.events
        beta = lgamma(0.5 + hits) + lgamma(0.5 + misses) - lgamma(1 + self.trials) - 2 * lgamma(0.5)
        return beta - hits * log(rate) - misses * log1p(-rate)


def _edge(is_out: Callable[[float], bool], out: float, within: float) -> float:
    """Return the rate between `out` (0 or 1) and `within` where it begins to be ruled out; always on the safe side."""
    for _ in range(_HALVINGS):
        middle = (out + within) / 2
        if not 0.0 < middle < 1.0:
            break
        if is_out(middle):
            out = middle
        else:
            within = middle
    return out


def rate_is_higher(new: Rate, old: Rate, margin: float, alpha: float = ALPHA) -> bool:
    """Return whether the rate of `new` is above that of `old` by more than `margin`, though asked at other times.

    Half of alpha is spent on each rate. The margin is for what changed on the host between the two.
    """
    if not old.trials:
        return False
    return new.bounds(alpha / 2)[0] > min(old.bounds(alpha / 2)[1] + margin, 1.0)


@dataclass(frozen=True, slots=True)
class Sums:
    """Numbers by their sums: how many, their sum, the sum of their squares."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def plus(self, value: float) -> "Sums":
        """Return the sums with one more number."""
        return Sums(self.count + 1, self.total + value, self.squares + value * value)

    @property
    def mean(self) -> float:
        """The mean; 0 of none."""
        return self.total / self.count if self.count else 0.0

    @property
    def variance(self) -> float:
        """The variance; 0 of fewer than two."""
        if self.count < 2:
            return 0.0
        return max(self.squares - self.total * self.mean, 0.0) / (self.count - 1)


def difference(new: Sums, old: Sums, alpha: float = ALPHA) -> tuple[float, float]:
    """Return between what the mean of `new` less that of `old` is, with a chance of 1 - alpha at every look.

    From -inf to inf while one of the two has fewer than LEAST_OF_MEANS numbers.
    """
    if min(new.count, old.count) < LEAST_OF_MEANS:
        return -inf, inf
    count = new.count + old.count
    variance = count * (new.variance / new.count + old.variance / old.count)
    square = (-2 * log(alpha) + log(-2 * log(alpha) + 1)) / TUNED_FOR  # rho^2
    spread = 2 * (count * square + 1) / (count * count * square) * log(sqrt(count * square + 1) / alpha)
    middle, half = new.mean - old.mean, sqrt(variance * spread)
    return middle - half, middle + half
