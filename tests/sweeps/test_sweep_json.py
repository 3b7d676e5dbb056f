"""A job of a sweep is found again by its overrides."""

import json

import pytest

from sslcli.errors import UserError
from sslcli.sweeps.sweep_json import numbers


def numbered(folder, *jobs, swept=("seed",)):
    return [(found.number, found.is_known) for found in numbers(folder, [job.split() for job in jobs], swept)]


def test_a_job_keeps_its_number_and_a_new_one_gets_the_next(tmp_path):
    assert numbered(tmp_path, "a.x=1 seed=0", "a.x=1 seed=1") == [(0, False), (1, False)]
    assert numbered(tmp_path, "seed=2 a.x=1", "seed=1 a.x=1", "a.x=2 seed=1") == [(2, False), (1, False), (3, False)]
    assert numbered(tmp_path, "a.x=1 seed=0", "seed=1 a.x=1") == [(0, True), (1, True)]
    written = json.loads((tmp_path / "sweep.json").read_text())["jobs"]
    assert [(job["job"], job["overrides"]) for job in written] == [
        (0, ["a.x=1", "seed=0"]), (1, ["seed=1", "a.x=1"]), (2, ["seed=2", "a.x=1"]), (3, ["a.x=2", "seed=1"]),
    ]  # fmt: skip


def test_what_may_change_while_a_run_goes_on_is_the_same_job_unless_the_sweep_goes_over_it(tmp_path):
    assert numbered(tmp_path, "seed=0 train.steps=5 log.every=1 run_dir=x") == [(0, False)]
    assert numbered(tmp_path, "seed=0 train.steps=9 +probe=linear resume=auto") == [(0, False)]
    assert numbered(tmp_path, "seed=0 train.batch_size=9") == [(1, False)]
    longer = ("seed=0 train.steps=5", "seed=0 train.steps=9")
    assert numbered(tmp_path, *longer, swept=("train.steps",)) == [(2, False), (3, False)]


def test_no_password_is_written(tmp_path):
    assert numbered(tmp_path, "dataset.path=http://me:secret@host/x") == [(0, False)]
    assert numbered(tmp_path, "dataset.path=http://me:secret@host/x") == [(0, True)]
    assert "secret" not in (tmp_path / "sweep.json").read_text()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"jobs": [{"job": 0}]}', '{"jobs": [{"job": "0", "overrides": [], "same": []}]}']
)
def test_a_damaged_file_ends_the_sweep_rather_than_mixing_up_its_jobs(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(UserError, match=r"run_dir: .*sweep.json, .*is damaged"):
        numbered(tmp_path, "seed=0")
    assert (tmp_path / "sweep.json").read_text() == text
