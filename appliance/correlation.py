"""The id under which everything that belongs to one request is found, whatever the listener."""

from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Set while a request is answered; log lines carry it. Stands alone, so that logging needs no onnxruntime."""
