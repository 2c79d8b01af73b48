"""Answers that a broker does not take: which they are, and when one of them is tried again."""

from collections import deque

REFUSED_SECONDS = 300.0
"""After which an answer that the broker refused is tried again: some brokers close the connection after a refusal."""


class Refusals:
    """The refused answers to one broker, by number and topic.

    Of each topic one is tried again, the newest; when the broker takes it, the others follow. Brokers refuse topics,
    for days and by the hundred thousand, and to try all of them again would keep the others waiting each time.
    """

    def __init__(self) -> None:
        self._numbers: set[int] = set()
        self._waiting: dict[str, deque[int]] = {}  # topic -> numbers
        self._due: dict[str, float] = {}  # topic -> when one is tried again, on whichever connection
        self._next = float("inf")
        self._tried: dict[int, str] = {}  # number -> topic of what is on its way again

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    def add(self, number: int, topic: str, now: float) -> None:
        """Take an answer that was refused at `now` (seconds), for the first time or again."""
        again = self._tried.pop(number, None) is not None
        self._numbers.add(number)
        self._waiting.setdefault(topic, deque()).append(number)
        if again or topic not in self._due:  # others of the topic that are refused meanwhile put nothing off
            self._due[topic] = now + REFUSED_SECONDS
            self._next = min(self._next, self._due[topic])

    def is_due(self, now: float) -> bool:
        """Return whether due() would return something."""
        return now >= self._next

    def due(self, now: float, first: int) -> list[int]:
        """Return the answers whose time has come, by number; forget those before `first`, no longer on disk."""
        found = []
        for topic in [topic for topic, due in self._due.items() if due <= now]:
            waiting = self._waiting[topic]
            while waiting and waiting[0] < first:
                self._numbers.discard(waiting.popleft())
            if waiting:
                number = waiting.pop()
                self._numbers.discard(number)
                self._tried[number] = topic
                found.append(number)
            self._due[topic] = now + REFUSED_SECONDS
            if not waiting:
                del self._waiting[topic], self._due[topic]
        self._next = min(self._due.values(), default=float("inf"))
        return sorted(found)

    def taken(self, number: int) -> list[int]:
        """Forget the refusal of an answer that was accepted; return, by number, the others of its topic."""
        topic = self._tried.pop(number, None)
        if topic is None or topic not in self._waiting:
            return []
        released = self._waiting.pop(topic)
        del self._due[topic]
        self._numbers.difference_update(released)
        return sorted(released)
