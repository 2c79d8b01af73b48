"""What a broker is asked for, so that each publish counts once however many of our filters match it. Pure.

A broker may send a publish once for each filter that matches it, or once for all of them (MQTT 5.0, 3.3.4; 3.1.1 the
same). With MQTT 5 each filter that overlaps another has a subscription identifier, and every copy says which filters it
stands for. Without identifiers we ask for filters alone that do not overlap: a filter that covers another stands for
both, and filters that overlap in part are refused.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.errors import ConfigError
from appliance.mqtt.topics import Filter

_MOST = 268_435_455  # the largest subscription identifier (MQTT 5.0, 3.8.2.1.2)


@dataclass(frozen=True, slots=True)
class Ask:
    """One filter of a SUBSCRIBE."""

    filter: Filter
    qos: int
    identifier: int = 0
    """The subscription identifier, 0 for none."""

    @property
    def text(self) -> str:
        """The filter as the broker is asked for it."""
        return self.filter.text


def identifiers(texts: Sequence[str]) -> dict[int, str]:
    """Return {subscription identifier: filter}, each filter having its own.

    An identifier depends on its filter alone (two of the same digest apart): brokers keep messages under it while we
    are away, and the configuration may be another one when they come.
    """
    found: dict[int, str] = {}
    for text in sorted(texts):
        number = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "big")
        number = number % _MOST + 1
        while number in found:
            number = number % _MOST + 1
        found[number] = text
    return found


def numbered(asked: Sequence[tuple[Filter, int]]) -> list[Ask]:
    """Return what to ask a broker that knows identifiers: (filter, QoS) each, no filter twice."""
    number_of = {text: number for number, text in identifiers([filter_.text for filter_, _ in asked]).items()}
    return [
        Ask(one, qos, number_of[one.text] if any(one.overlaps(other) for other, _ in asked if other is not one) else 0)
        for one, qos in asked
    ]


def covering(asked: Sequence[tuple[Filter, int]]) -> list[Ask]:
    """Return what to ask a broker without identifiers: (filter, QoS) each, no filter twice.

    Raises ConfigError for filters that overlap while neither covers the other.
    """
    chosen: list[Ask] = []
    for one, qos in asked:
        covers = [other for other, _ in asked if other is not one and other.covers(one)]
        if not covers:
            most = max([qos, *(other_qos for other, other_qos in asked if one.covers(other))])
            chosen.append(Ask(one, most))
    for place, ask in enumerate(chosen):
        for other in chosen[place + 1 :]:
            if ask.filter.overlaps(other.filter):
                found = (
                    f"the filters {ask.text!r} and {other.text!r} overlap, and without MQTT 5's subscription "
                    "identifiers a message that both match cannot be told from two messages"
                )
                next_step = 'narrow one, or use protocol = "5" and a broker that has subscription identifiers'
                raise ConfigError("configuration [mqtt]", found, next_step)
    return chosen
