"""The listening socket: bound before any process starts, so that all of them share it."""

import socket

from appliance.errors import Misuse


def bind(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; port 0 is any free one. Raises Misuse when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        found = error.strerror or str(error)
        next_step = "choose another --port, or stop what listens there (ss -ltnp tells what it is)"
        raise Misuse(f"listen on {host}:{port}", found, next_step) from error
    return listener
