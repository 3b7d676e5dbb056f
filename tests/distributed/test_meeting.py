"""The ranks of a run find each other, or say in one line why not. Here each of them is a thread."""

import socket
import threading
from contextlib import ExitStack, contextmanager, suppress

import pytest

from sslcli.distributed import meeting
from sslcli.distributed.meeting import meet
from sslcli.distributed.start import PORTS, LeftAlone, Start
from sslcli.errors import UserError

SECONDS = 0.5


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return min(found.getsockname()[1], 65000)


@contextmanager
def taken(port):
    """Another program listens on a port, accepts connections, and says nothing."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", port))
        server.listen()
        yield


def start_of(rank, size=2, *, port, **changes):
    return Start(
        rank, size, rank, **{"address": "localhost", "port": port, "name": "run.0", "by": "torchrun", **changes}
    )


def together(starts, facts=None, seconds=20.0):
    """What comes of ``meet`` for each of these ranks: a store or the text of an error."""
    found = {}

    def one(start, own):
        try:
            found[start.rank] = meet(start, own, seconds)
        except UserError as error:
            found[start.rank] = str(error)

    threads = [threading.Thread(target=one, args=pair) for pair in zip(starts, facts or [{}] * len(starts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_ranks_share_a_store():
    port = free_port()
    found = together([start_of(rank, 3, port=port) for rank in (2, 0, 1)], [{"seed": 0}] * 3)
    found[0].set("word", "heard")
    assert found[2].get("word") == b"heard"


def test_a_port_in_use_is_passed_over_by_all(monkeypatch):
    monkeypatch.setattr(meeting, "_ONE_TRY", 0.3)
    port = free_port()
    with taken(port):
        found = together([start_of(rank, port=port) for rank in (0, 1)])
    found[1].set("word", "heard")
    assert found[0].get("word") == b"heard"


def test_two_starts_of_a_run_do_not_meet():
    """The older one still listens on the first port."""
    port = free_port()
    older = together([start_of(rank, port=port, name="run.0") for rank in (0, 1)])
    newer = together([start_of(rank, port=port, name="run.1") for rank in (0, 1)])
    older[0].set("word", "old")
    newer[0].set("word", "new")
    assert (older[1].get("word"), newer[1].get("word")) == (b"old", b"new")


def test_another_config_is_told_by_all_before_anything_is_computed():
    port = free_port()
    facts = [{"train.steps": 5, "torch": "2.9"}, {"train.steps": 6, "torch": "2.9"}]
    found = together([start_of(rank, port=port) for rank in (0, 1)], facts)
    assert all("differ: rank 1 on" in text and "has train.steps=6 and 5 on rank 0" in text for text in found.values())


def test_rank_0_does_not_leave_before_all_have_seen_the_difference():
    """They look at different moments, and those that look after rank 0, which holds the store, must find it."""
    port, size = free_port(), 8
    found = together(
        [start_of(rank, size, port=port) for rank in range(size)], [{"step": rank // 7} for rank in range(size)]
    )
    assert set(found.values()) == {found[0]} and "differ: rank 7 on" in found[0]


def test_ranks_that_do_not_come_are_named():
    found = together([start_of(rank, 4, port=free_port()) for rank in (0, 2)][:1], seconds=SECONDS)
    assert found[0].startswith("Of 4 processes, rank 1, 2, 3 did not come within 0.5 s")


def test_others_do_not_give_up_before_rank_0_which_says_why():
    port, found = free_port(), {}
    first = threading.Thread(
        target=lambda: found.update(together([start_of(0, 3, port=port)], seconds=3 * SECONDS)), daemon=True
    )
    first.start()
    found |= together([start_of(1, 3, port=port)], seconds=SECONDS)
    first.join(60)
    assert found[0].startswith("Of 3 processes, rank 2 did not come") and found[1] == str(LeftAlone())


@pytest.mark.parametrize(
    ("address", "problem"),
    [("localhost", "refuses the connection"), ("no-such-host.invalid", "cannot be reached (")],
)
def test_rank_0_is_not_there(address, problem):
    found = together([start_of(1, port=free_port(), address=address)], seconds=SECONDS)
    assert found[1].startswith(f"rank 1 on {socket.gethostname()}: rank 0 at {address}, port ")
    assert problem in found[1] and "device.meet_s=SECONDS" in found[1]


def test_all_ports_in_use_are_told():
    port = free_port()
    with ExitStack() as held:
        for number in range(port, port + PORTS):
            with suppress(OSError):  # in use already
                held.enter_context(taken(number))
        found = together([start_of(0, port=port)], seconds=SECONDS)
    assert f"the ports {port} to {port + PORTS - 1} are in use" in found[0]
