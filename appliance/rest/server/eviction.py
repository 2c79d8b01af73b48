"""Which connections end where there are too many of them, or where they hold too much; pure.

A connection with a request that is being answered is never ended. The order of the others: first those of a client that
holds more than its share of all connections; then those that do not read their answers, are silent, or send a request
slowly, the longest first. So a client that opens many connections loses its own, and a client that sends requests and
reads the answers is served.
"""

import functools
import ipaddress
from collections import Counter
from collections.abc import Collection

from appliance.rest.server.channel import Channel, Standing

AT_ONCE = 8
"""Connections that end together: looking at all of them for each new one would slow the service."""


def to_make_room(channels: Collection[Channel], now: float) -> list[Channel]:
    """Return the connections to end so that others can come; empty where each is being answered or has just come."""
    holders = Counter(_peer(channel.addr[0]) for channel in channels)
    share = len(channels) / max(1, len(holders))
    found = []
    for place, channel in enumerate(channels):
        standing, seconds = channel.standing(now)
        if standing is not Standing.BUSY:
            fair = holders[_peer(channel.addr[0])] <= share
            found.append((fair, standing, -seconds, place, channel))
    return [channel for *_, channel in sorted(found)[:AT_ONCE]]


def to_give_back(channels: Collection[Channel], now: float, most: int) -> list[Channel]:
    """Return the connections to end so that all hold `most` bytes: those not reading first, then the largest."""
    found = [(channel, channel.held(), channel.standing(now)[0]) for channel in channels]
    too_much = sum(held for _, held, _ in found) - most
    ended = []
    for channel, held, standing in sorted(found, key=lambda one: (one[2] is not Standing.STUCK, -one[1])):
        if too_much <= 0:
            break
        if standing is not Standing.BUSY or (channel.request_started and not channel.requests):
            ended.append(channel)
            too_much -= held
    return ended


@functools.lru_cache(maxsize=4096)
def _peer(address: str) -> str:
    """Return the client of an address: for IPv6 the network of 64 bits, which is usually one host's."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    return str(found.ipv4_mapped or int(found) >> 64)
