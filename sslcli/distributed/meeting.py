"""The processes of a run find each other, and check that they belong together, before any of them waits for another.

Rank 0 holds the store and announces it on the first free one of a few ports: it sends everybody who connects a line
with the name of this start and the port of the store. The others try these ports in turn until one sends the right
name, so that a port in use by another program, or by another start of the run, does no harm. Connecting blocks where
no signal is heard, so it is done in a thread of its own.
"""

from __future__ import annotations

import functools
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import torch.distributed as dist

from sslcli.distributed.start import PORTS, LeftAlone, Start
from sslcli.errors import UserError

T = TypeVar("T")
Store = Any  # dist.Store; torch has no types for what it can do
Facts = Mapping[str, Any]
_PAUSE = 0.1  # seconds between two looks
_ONE_TRY = 3.0  # seconds for a host that does not answer, and for a server that accepts a connection and says nothing


def meet(start: Start, facts: Facts, seconds: float) -> Store:
    """Return the store that all processes of the run share, once all of them have come.

    Args:
        start: the place of this process among them.
        facts: what must be equal in all of them, such as their config, with names for a message.
        seconds: how long to wait for the others.

    Raises:
        UserError: rank 0 is not found, some did not come, or one has other facts.
        Stopped: a signal came meanwhile.
    """
    deadline = time.monotonic() + seconds
    store: Store | None
    with ExitStack() as held:
        if start.first and start.listens:
            store = dist.TCPStore("localhost", 0, start.size, is_master=True, wait_for_workers=False)
            held.enter_context(_announced(start, store.port))
        else:
            store = in_thread(functools.partial(_found, start, deadline), deadline + 2 * _ONE_TRY)
        if store is None:
            raise UserError(f"{start}: the connection to {start.address} hangs. {_ADVICE}")
        store = dist.PrefixStore(f"sslcli/{start.name}", store)
        try:
            store.set(str(start.rank), json.dumps({"host": socket.gethostname(), **facts}, default=str))
            _wait_for_all(start, store, deadline, seconds)
            facts_of_all = [json.loads(store.get(str(rank))) for rank in range(start.size)]
            if problem := _disagreement(facts_of_all):
                _leave_together(start, store)
                raise UserError(problem)
        except dist.DistError as error:
            raise LeftAlone from error
    return store


def in_thread(act: Callable[[], T], deadline: float) -> T | None:
    """Return what ``act`` returns, called in a thread so that this one hears signals; None after the deadline."""
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(act())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call, name="meeting", daemon=True)
    thread.start()
    while thread.is_alive() and time.monotonic() < deadline:
        thread.join(_PAUSE)
    if errors:
        raise errors[0]
    return results[0] if results else None


_ADVICE = "Give a reachable MASTER_ADDR=HOST, or more time by device.meet_s=SECONDS."


@contextmanager
def _announced(start: Start, port: int) -> Iterator[None]:
    """Announce the port of the store inside this block, on the first free one of the ports of this start."""
    server = _server(start)
    line = _line(start, port).encode()

    def answer() -> None:
        with suppress(OSError):  # the server is closed
            while True:
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    connection.sendall(line)

    thread = threading.Thread(target=answer, name="announcement", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()


def _line(start: Start, port: int) -> str:
    return f"sslcli {start.name} {port}\n"


def _server(start: Start) -> socket.socket:
    dual = socket.has_dualstack_ipv6()
    for port in range(start.port, start.port + PORTS):
        with suppress(OSError):
            family = socket.AF_INET6 if dual else socket.AF_INET
            return socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    ports = f"{start.port} to {start.port + PORTS - 1}"
    raise UserError(f"{start}: the ports {ports} are in use. Set MASTER_PORT to a free one.")


def _found(start: Start, deadline: float) -> Store:
    """Return the store of rank 0, or of torchrun, as soon as it can be reached."""
    while True:
        try:
            address = _resolved(start)
            port, problem = _announced_port(start, address) if start.listens else (start.port, "")
            if port is not None:
                return dist.TCPStore(address, port, start.size, is_master=False, wait_for_workers=False)
        except OSError as error:
            problem = f"cannot be reached ({error.strerror or error})"
        if time.monotonic() > deadline:
            raise UserError(f"{start}: rank 0 at {start.address}, port {start.port}, {problem}. {_ADVICE}")
        time.sleep(_PAUSE)


def _announced_port(start: Start, address: str) -> tuple[int | None, str]:
    """Return the port of the store of this start, or None and why it was not found."""
    problem = "refuses the connection"
    for port in range(start.port, start.port + PORTS):
        try:
            with (
                socket.create_connection((address, port), timeout=_ONE_TRY) as connection,
                connection.makefile() as file,
            ):
                found = file.readline(200)
        except ConnectionRefusedError:
            continue
        except (UnicodeDecodeError, TimeoutError):
            found = ""
        number = found.rstrip().rpartition(" ")[2]
        if number.isdigit() and found == _line(start, int(number)):
            return int(number), ""
        problem = "is in use by another program"
    return None, problem


def _resolved(start: Start) -> str:
    """Return an address that resolves: that of rank 0's host, or the one by which Slurm knows it."""
    try:
        socket.getaddrinfo(start.address, None)
    except OSError:
        if start.by != "srun":
            raise
        with suppress(OSError, subprocess.SubprocessError):
            line = subprocess.run(
                ["scontrol", "show", "node", "-o", start.address], capture_output=True, text=True, timeout=10
            ).stdout
            if found := re.search(r"\bNodeAddr=(\S+)", line):
                return found[1]
        raise
    return start.address


def _wait_for_all(start: Start, store: Store, deadline: float, seconds: float) -> None:
    """Wait until all have come; where rank 0 holds the store, only rank 0 gives up, and says so."""
    gives_up = start.first or not start.listens
    missing = list(range(start.size))
    while missing := [rank for rank in missing if not store.check([str(rank)])]:
        if gives_up and time.monotonic() > deadline:
            names = ", ".join(map(str, missing[:8])) + " ..." * (len(missing) > 8)
            raise UserError(
                f"Of {start.size} processes, rank {names} did not come within {seconds:g} s. Their own messages say "
                "why; device.meet_s=SECONDS waits longer."
            )
        time.sleep(_PAUSE)


def _disagreement(facts_of_all: Sequence[Facts]) -> str:
    """Say which process has other facts than rank 0, the same one in all processes; "" if all are equal."""
    first = facts_of_all[0]
    for rank, facts in enumerate(facts_of_all):
        if others := _differences(first, facts):
            return (
                f"The processes of this run differ: rank {rank} on {facts['host']} has {'; '.join(others[:3])} on rank "
                "0. Start all with the same command and the same installation."
            )
    return ""


def _leave_together(start: Start, store: Store) -> None:
    """Let rank 0, whose end closes the store, wait a little until all have read what it holds."""
    store.set(f"{start.rank} has read", "")
    deadline = time.monotonic() + _ONE_TRY
    if start.first:
        while not store.check([f"{rank} has read" for rank in range(start.size)]) and time.monotonic() < deadline:
            time.sleep(_PAUSE)


def _differences(first: Facts, other: Facts) -> Sequence[str]:
    keys = sorted({*first, *other} - {"host"})
    return [f"{key}={other.get(key)} and {first.get(key)}" for key in keys if first.get(key) != other.get(key)]
