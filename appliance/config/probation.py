"""`[probation]`: how a version that was activated is watched until it is marked good, or taken back."""

from appliance.config.section import Fraction, NotNegative, NotNegativeSeconds, Positive, Seconds, Section


class ProbationConfig(Section, frozen=True):
    """`[probation]`: how a version that was activated is watched until it is marked good, or taken back."""

    enabled: bool = True
    """Whether the service watches a version on probation, marks it good and takes it back. `false`: both are done by
    hand, or by Ansible.
    """
    min_requests: Positive = 300
    """Requests that a version answers at least before it is marked good."""
    min_seconds: NotNegativeSeconds = 3600.0
    """Seconds for which a version serves at least before it is marked good."""
    max_seconds: Seconds = 604_800.0
    """Seconds after which `status` says that there is too little traffic to judge a version. It stays on probation."""
    margin: Fraction = 0.025
    """By how much the rate of failures may be above that of the version before, as a share of the requests: the two
    are compared at different times, and callers change too.
    """
    alpha: Fraction = 0.01
    """The chance, of each test, that a version is ever taken back although it is as good as the one before."""
    self_test_seconds: NotNegative = 60
    """Seconds between two self-tests of a version on probation. 0: none but those that `/health/ready` makes."""
    keep_loaded: bool = True
    """Whether the version before stays loaded meanwhile, so that going back takes less than a second. `false` saves
    its memory.
    """
