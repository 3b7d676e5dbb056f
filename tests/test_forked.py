"""What a forked process must not leave behind in the tests' process."""

import io
import os
import threading

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
