"""What a forked process must not leave behind in the tests' process."""

import io
import os
import select
import subprocess
import threading
import time

import pytest
from support.forked import Forked
from tqdm import tqdm


def bar():
    with tqdm(total=1, file=io.StringIO()) as shown:
        shown.update()


def test_a_process_that_ends_inside_a_progress_bars_lock_leaves_the_lock_free():
    def entry():
        tqdm.get_lock().acquire()
        os._exit(75)

    bar()  # the lock is made once a process
    assert Forked(entry, "ssl-train").wait() == 75
    thread = threading.Thread(target=bar, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_a_process_that_takes_too_long_is_ended_and_says_where_it_was():
    process = Forked(lambda: time.sleep(60), "ssl-train")
    with pytest.raises(subprocess.TimeoutExpired) as late:
        process.wait(timeout=0.5)
    assert "test_forked.py" in late.value.output
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_process_ends_with_the_one_that_started_it():
    """Its inherited pipes close then, so that whoever reads from them is not kept waiting."""
    reading, writing = os.pipe()

    def entry():
        Forked(lambda: time.sleep(600), "ssl-train")
        os.kill(os.getpid(), 9)

    Forked(entry, "ssl-train").wait()
    os.close(writing)
    assert select.select([reading], [], [], 60)[0] and os.read(reading, 1) == b""
    os.close(reading)
