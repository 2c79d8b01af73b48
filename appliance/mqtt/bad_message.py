"""Messages that no answer can be given to: their error, its reasons, and what the error topic is told. Pure."""

import msgspec

from appliance.errors import ApplianceError, InvalidInput, TooLarge

_SHOWN = 256  # bytes of a bad payload that its error message quotes


class BadMessage(InvalidInput):
    """A message that no answer can be given to; `reason` is the word under which it is counted."""

    def __init__(self, reason: str, tried: str, found: str, next_step: str) -> None:
        super().__init__(tried, found, next_step)
        self.reason = reason


def too_large(size: int, most: int) -> BadMessage:
    """Return the error of a payload of more than `most` bytes."""
    found = f"it has {size} bytes, {most} may be"
    return BadMessage("too_large", "read the payload", found, "send less, or raise [mqtt] max_payload_bytes")


def too_much(cost: int, most: int) -> BadMessage:
    """Return the error of a payload that would take too much memory."""
    found = f"it would take up to {cost} bytes of memory, {most} may be"
    return BadMessage("too_large", "read the payload", found, "send fewer rows in one message")


def error_payload(
    error: ApplianceError, reason: str, topic: str, identifier: str, payload: bytes, *, size: int = 0
) -> bytes:
    """Return what the error topic is told of a bad message, whose payload has `size` bytes (0: it is all of it)."""
    return msgspec.json.encode(
        {
            "error": reason,
            "tried": _clean(error.tried),
            "found": _clean(error.found),
            "next_step": _clean(error.next_step),
            "topic": topic,
            "id": identifier,
            "payload": payload[:_SHOWN].decode("utf-8", "replace"),
            "payload_bytes": size or len(payload),
        }
    )


def reason_of(error: ApplianceError) -> str:
    """Return the word under which a bad message is counted."""
    if isinstance(error, BadMessage):
        return error.reason
    return "too_large" if isinstance(error, TooLarge) else "rows"


def _clean(text: str) -> str:
    """Return a text that can be written: what was read may hold half of a pair of surrogates."""
    return text.encode("utf-8", "replace").decode()
