"""What a broker was asked for on one connection, and what it refused.

Threads: all of it is for the loop's thread, on which paho's callbacks run too.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from appliance.mqtt.overlaps import Ask

log = logging.getLogger(__name__)


def in_packets(asks: Sequence[Ask]) -> Iterator[Sequence[Ask]]:
    """Yield the filters of each SUBSCRIBE: an identifier belongs to a whole packet, so its filter goes alone."""
    if plain := [ask for ask in asks if not ask.identifier]:
        yield plain
    yield from ([ask] for ask in asks if ask.identifier)


class Subscriptions:
    """The filters of SUBSCRIBE packets, answered or not."""

    def __init__(self, address: str) -> None:
        """`address` is the broker's, for the log."""
        self.refused: list[str] = []
        """Filters that the broker refused, so it sends us no messages of them."""
        self._address = address
        self._asked: dict[int, list[str]] = {}  # packet id of an unanswered SUBSCRIBE -> its filters

    def forget(self) -> None:
        """Forget what was asked and refused: another connection begins."""
        self.refused, self._asked = [], {}

    def asked(self, packet_id: int, asks: Sequence[Ask]) -> None:
        """Remember a SUBSCRIBE that was sent, until the broker answers it."""
        self._asked[packet_id] = [ask.text for ask in asks]

    def answered(self, packet_id: int, reasons: Sequence[Any]) -> None:
        """Take the broker's answer to one SUBSCRIBE: a reason code for each of its filters."""
        asked = self._asked.pop(packet_id, [])
        for text, reason in zip(asked, reasons, strict=False):
            if reason.is_failure:
                self.refused.append(text)
                about = {"broker": self._address, "topic": text, "reason": str(reason)}
                log.error("broker refuses a subscription", extra=about)
        given = [text for text in asked if text not in self.refused]
        log.info("subscribed", extra={"broker": self._address, "topics": given})
