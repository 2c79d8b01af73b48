"""When a connection ends because its client is too slow or silent, or because the service stops; monotonic times.

All of it is for the loop's thread.
"""

import socket
import struct

from appliance.errors import InvalidInput
from appliance.rest.server.channel import LINGER_SECONDS, Channel

LEAST_TAKEN = 4096
"""Bytes of answers that a client has to take in each `request_timeout`, or the rest where that is less."""
LAST_LINGER_SECONDS = 1.0
"""For which an ended connection waits for the client to end its own direction, while the service stops."""


# tcpi_bytes_acked of struct tcp_info (linux/tcp.h), there since Linux 4.1.
_TCP_INFO_BYTES, _ACKNOWLEDGED_AT, _ACKNOWLEDGED = 192, 120, struct.Struct("=Q")


class SlowRequest(InvalidInput):
    """A request that did not arrive in time."""

    status = 408


def time_out(channel: Channel, now: float, request_timeout: float, idle_timeout: float) -> None:
    """End a connection that lingers, sends or reads too slowly, or does nothing."""
    unsent = channel.parked or (channel.total_outbufs_len and not channel.requests)
    if not unsent:
        channel.mark = (0.0, 0)
    if channel.linger_until:
        if now > channel.linger_until:
            channel.drop()
    elif channel.request_started and now - channel.request_started > request_timeout:
        found = f"it did not arrive within {request_timeout:g} seconds"
        channel.refuse(SlowRequest("read the request", found, "send it faster"))
    elif unsent:
        if not _takes_answers(channel, now, request_timeout):
            channel.drop()  # no event would come
    elif not channel.is_unfinished() and now - channel.last_activity > idle_timeout:
        channel.end()


def finish(channel: Channel, now: float, quiet: float) -> None:
    """End the connection when nothing of it is unanswered, while the service stops; silent ones at `quiet`."""
    if channel.linger_until:
        if now > channel.linger_until - LINGER_SECONDS + LAST_LINGER_SECONDS:
            channel.drop()
    elif now > quiet and not channel.is_unfinished() and not channel.has_more():
        channel.end()


def _takes_answers(channel: Channel, now: float, request_timeout: float) -> bool:
    """Return whether the client has read enough of its answers lately: what its kernel has acknowledged counts."""
    try:
        told = channel.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        taken: int = _ACKNOWLEDGED.unpack_from(told, _ACKNOWLEDGED_AT)[0]
    except (OSError, struct.error):  # gone, or another system: at least something was sent lately
        return now - channel.last_activity <= request_timeout
    since, before = channel.mark
    if not since or taken - before >= LEAST_TAKEN:
        channel.mark = (now, taken)
        return True
    return now - since <= request_timeout
