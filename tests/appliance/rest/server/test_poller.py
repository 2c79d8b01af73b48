"""What the loop waits for: only who is to be rechecked is asked, and what is closed is forgotten."""

import socket
import threading

import pytest

from appliance.rest.server.poller import Poller


class Owner:
    """One end of a connection, in waitress' shape."""

    accepting = False

    def __init__(self, members, end):
        self.end, self.members = end, members
        self._fileno = end.fileno()
        self.wants_to_read, self.wants_to_write = True, False
        self.asked, self.got, self.written = 0, b"", 0
        self.then = lambda: None
        members[self._fileno] = self

    def readable(self):
        self.asked += 1
        return self.wants_to_read

    def writable(self):
        return self.wants_to_write

    def handle_read_event(self):
        self.got += self.end.recv(100)
        self.then()

    def handle_write_event(self):
        self.written += 1
        self.wants_to_write = False


@pytest.fixture
def pairs():
    """Return connections: the end that is watched with its owner, and the other one."""
    members = {}
    poller = Poller(members)
    ends = [socket.socketpair() for _ in range(4)]
    owners = [Owner(members, end) for end, _ in ends]
    poller.recheck(*owners)
    yield poller, owners, [other for _, other in ends]
    poller.close()
    for pair in ends:
        for end in pair:
            end.close()


def test_silent_connections_are_not_asked_again(pairs):
    poller, owners, others = pairs
    poller.wait(0)
    for _ in range(20):
        others[2].send(b"x")
        poller.wait(1)
    poller.wait(0)
    assert owners[2].got == b"x" * 20
    assert [owner.asked for owner in owners] == [1, 1, 21, 1]


def test_what_a_connection_wants_changes_when_it_is_rechecked(pairs):
    poller, owners, others = pairs
    owners[0].wants_to_read = False
    poller.wait(0)
    others[0].send(b"x")
    poller.wait(0)
    assert owners[0].got == b""
    owners[0].wants_to_read = owners[0].wants_to_write = True
    thread = threading.Thread(target=poller.recheck, args=(owners[0],))
    thread.start()
    thread.join()
    poller.wait(1)
    assert (owners[0].got, owners[0].written) == (b"x", 1)
    poller.wait(0)
    assert owners[0].written == 1


def test_number_of_a_closed_connection_serves_the_next_one(pairs):
    poller, owners, _ = pairs
    poller.wait(0)
    number = owners[1]._fileno
    poller.forget(number)
    del poller._members[number]
    owners[1]._fileno = None
    owners[1].end.close()
    one, other = socket.socketpair()
    with one, other:
        again = Owner(poller._members, one)
        assert again._fileno == number
        poller.recheck(owners[1], again)
        other.send(b"new")
        poller.wait(1)
        assert (again.got, owners[1].got) == (b"new", b"")
        poller.forget(number)


def test_connection_that_another_one_closed_in_this_turn_is_left_alone(pairs):
    poller, owners, others = pairs
    poller.wait(0)

    def close_the_others():
        for owner in owners:
            if not owner.got:
                poller._members.pop(owner._fileno, None)

    for owner, other in zip(owners, others, strict=True):
        owner.then = close_the_others
        other.send(b"x")
    poller.wait(1)
    assert sorted(owner.got for owner in owners) == [b"", b"", b"", b"x"]
