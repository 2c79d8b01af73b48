"""Home Assistant discovery: announces every topic that answers go to, so that it is shown.

Source: Home Assistant's MQTT discovery (home-assistant.io/integrations/mqtt, "MQTT Discovery").
"""

import hashlib
import re
from collections.abc import Callable, Container, Mapping, Sequence

import msgspec

from appliance import __version__
from appliance.mqtt.outbox import Answer, Stored

_NO_OBJECT_ID = re.compile(r"[^a-zA-Z0-9_-]+")
_MOST = 500  # topics that Home Assistant is told of


class Discovery:
    """Announces each topic once, again after forget()."""

    def __init__(self, prefix: str, client_id: str, availability: str) -> None:
        self._prefix, self._client_id, self._availability = prefix, client_id, availability
        self._told: set[str] = set()

    def forget(self) -> None:
        """Announce every topic again: Home Assistant may have forgotten them."""
        self._told.clear()

    def tell(
        self,
        stored: Sequence[Stored],
        others: Container[str],
        units: Mapping[str, str],
        publish: Callable[[str, bytes], object],
    ) -> None:
        """Announce the topics of answers, `others` apart, which somebody else than the configuration has chosen.

        `units` are those of numeric predictions, by topic.
        """
        for one in stored:
            answer = one.answer
            if answer.model and answer.topic not in self._told and answer.topic not in others:
                if len(self._told) >= _MOST:
                    return
                self._told.add(answer.topic)
                unit = units.get(answer.topic, "")
                publish(*announcement(self._prefix, self._client_id, self._availability, answer, unit))


def announcement(prefix: str, client_id: str, availability: str, answer: Answer, unit: str = "") -> tuple[str, bytes]:
    """Return (topic, payload) that announces the sensor whose states are the answers to `answer.topic`.

    The state is the first prediction; the whole answer is its attributes. A number that is no class is a measurement in
    `unit`, of which Home Assistant keeps statistics. To be published retained.
    """
    digest = hashlib.blake2b(f"{client_id}\0{answer.topic}".encode(), digest_size=8).hexdigest()
    node = _NO_OBJECT_ID.sub("_", client_id)
    config: dict[str, object] = {
        "name": f"{answer.model} {answer.topic}",
        "unique_id": digest,
        "state_topic": answer.topic,
        "value_template": "{{ value_json.prediction[0] }}",
        "json_attributes_topic": answer.topic,
        "availability_topic": availability,
        "payload_available": "online",
        "payload_not_available": "offline",
        "device": {
            "identifiers": [client_id],
            "name": client_id,
            "model": "edge inference appliance",
            "sw_version": __version__,
        },
    }
    if _is_measurement(answer):
        config |= {"state_class": "measurement"} | ({"unit_of_measurement": unit} if unit else {})
    return f"{prefix}/sensor/{node}/{digest}/config", msgspec.json.encode(config)


def _is_measurement(answer: Answer) -> bool:
    """Return whether an answer's prediction is a number, and no class with its probability."""
    try:
        found = msgspec.json.decode(answer.payload)
        first = found["prediction"][0]
    except (msgspec.MsgspecError, UnicodeDecodeError, LookupError, TypeError):  # CBOR, or the answer to no row
        return False
    return "probability" not in found and isinstance(first, (int, float)) and not isinstance(first, bool)
