"""Labels that come as messages: what a payload of a subscription of kind `labels` says. Pure."""

from typing import Any

from appliance import labels
from appliance.config import SubscriptionConfig
from appliance.errors import InvalidInput
from appliance.labels import GivenLabel
from appliance.mqtt.bad_message import BadMessage
from appliance.mqtt.codec import at_path, is_absent


def labels_of(config: SubscriptionConfig, document: Any) -> list[GivenLabel]:
    """Return the labels of a payload: where `at`, `id` and `fields` say, else as over HTTP. Raises BadMessage."""
    body = at_path(document, config.at) if config.at else document
    if is_absent(body):
        raise BadMessage("field", "read the payload", f"there is no {config.at!r}", "send the labels there")
    try:
        if not config.fields and not config.id:
            return labels.of_document(body)
        return labels.of_document([_picked(config, one) for one in (body if isinstance(body, list) else [body])])
    except InvalidInput as error:
        raise BadMessage("form", error.tried, error.found, error.next_step) from error


def _picked(config: SubscriptionConfig, one: Any) -> dict[str, Any]:
    """Return a label's id, label and time, each from its path."""
    paths = {"id": config.id or "id", "label": "label", "time": "time", **config.fields}
    found = {name: at_path(one, paths[name]) for name in ("id", "label", "time")}
    return {name: value for name, value in found.items() if not is_absent(value)}
