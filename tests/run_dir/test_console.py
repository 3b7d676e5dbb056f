"""The terminal: lines fit 100 columns, and the remaining time of the bar does not jump with every step."""

import io
import sys

import numpy as np

from sslcli.run_dir.console import Console
from sslcli.run_dir.formatting import COLUMNS, in_columns, wrapped


def test_lines_are_broken_between_words_that_stay_whole():
    words = [f"term_{k} {k:.4f}" for k in range(20)]
    lines = in_columns(*words)
    assert "  ".join(line.removeprefix("  ") for line in lines) == "  ".join(words)
    assert 1 < len(lines) < 5 and all(len(line) <= COLUMNS for line in lines)
    assert in_columns("one", "two") == ["one  two"]
    path = "/" + "x" * 150
    assert wrapped(f"data      {path} and more", indent=10) == ["data", f"{' ' * 10}{path}", f"{' ' * 10}and more"]
    assert wrapped("") == [""]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_remaining_time_is_smooth(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    console, now, steps = Console(), 0.0, 600
    console.start_bar(steps, 0, samples=8)
    bar = console._bar
    bar._time = lambda: now
    bar.start_t = bar.last_print_t = now
    durations = np.random.default_rng(0).choice([0.05, 0.1, 0.6], steps, p=[0.6, 0.3, 0.1])  # now and then, a pause
    ends = []
    for duration in durations:
        now += duration
        console.advance(8)
        if bar.n < bar.total:
            ends.append(now + (bar.total - bar.n) / (bar.format_dict["rate"] or np.nan))
    console.stop_bar()
    assert np.std(ends[steps // 4 :]) < 0.08 * durations.sum()
    assert abs(ends[-50] - durations.sum()) < 0.08 * durations.sum()
