"""What the service asks of a way in for rows, be it HTTP, MQTT or another one."""

from typing import Protocol


class Listener(Protocol):
    """Built stopped; run() is called once, on a thread that it keeps; the other methods may be called from any."""

    name: str
    """As a prediction tells through what its rows came: http, mqtt. Names the thread as well."""

    def run(self) -> None:
        """Answer until stop() is called; return when what was begun has ended or its time is over."""

    def stop(self) -> None:
        """Have run() return soon; safe in a signal handler."""

    def alive(self) -> str:
        """Return "" while it takes its turns, else what is wrong; may wait for a few seconds."""
