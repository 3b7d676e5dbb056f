"""The table of a sweep, computed by hand from what stands in the folders of its jobs."""

import csv
import json
import time
from dataclasses import replace

import pytest
from scipy import stats
from support.forked import Forked
from support.helpers import compose

from sslcli.run_dir.layout import write_config
from sslcli.run_dir.lock import locked
from sslcli.run_dir.outcome import FAILED, OK, RUNNING, Outcome, write_outcome
from sslcli.run_dir.result_json import write_result
from sslcli.sweeps import results
from sslcli.sweeps.results import read_sweep
from sslcli.sweeps.sweep_json import change, numbers
from sslcli.sweeps.table import best_command, table, write_csv, write_results

KNN = {"unit": "share", "higher_is_better": True, "standard_error": 0.01, "protocol": "p"}
LOSS = {"unit": "", "higher_is_better": False, "standard_error": 0.1, "protocol": "held out"}


def write(folder, jobs, name="knn_top1", entry=KNN):
    """A sweep: the overrides of each job and its value, or the message of one that failed."""
    config = compose("log.report=false")
    for numbering, (overrides, value) in zip(numbers(folder, [text.split() for text in jobs], ["seed"]), jobs.items()):
        failed = isinstance(value, str)
        outcome = Outcome(outcome=FAILED, message=value, exit_code=2) if failed else Outcome(outcome=OK)
        write_outcome(folder, numbering.number, outcome)
        if not failed:
            run_dir = folder / str(numbering.number)
            given = dict(text.split("=") for text in overrides.split())
            temperature = float(given.get("objective.temperature", 0.2))
            objective = config.objective.with_keys(temperature=temperature)
            write_config(run_dir, replace(config, seed=int(given["seed"]), objective=objective))
            metrics = {name: {**entry, "value": value, "samples": 100, "seed": 0}}
            write_result(run_dir, metrics, headline=name, steps=1, seconds=2.5, seed=0, uses_labels=False)
    return read_sweep(folder)


JOBS = {
    "objective.temperature=0.1 seed=0": 0.60,
    "objective.temperature=0.1 seed=1": 0.80,
    "objective.temperature=0.5 seed=0": 0.71,
    "objective.temperature=0.5 seed=1": 0.89,
    "objective.temperature=-1 seed=0": "objective.temperature=-1 must be above 0",
    "objective.temperature=0.02 seed=0": 0.5,
}


def test_seeds_are_averaged_and_the_best_setting_comes_first(tmp_path):
    sweep = write(tmp_path / "s", JOBS)
    found = [(s.reading.value, s.reading.standard_error) for s in sweep.settings if s.reading]
    assert found[0] == pytest.approx((0.80, 0.09))  # of two numbers, half their difference
    assert found[1] == pytest.approx((0.70, 0.10))
    assert found[2] == pytest.approx((0.5, 0.01))  # one seed has the error of its measurement
    assert [setting.reading for setting in sweep.settings[3:]] == [None]
    assert best_command(sweep) == "ssl-train objective.temperature=0.5"
    lines = table(sweep)
    assert lines[0] == f"{tmp_path / 's'}: 6 jobs (5 ok, 1 failed)"
    assert lines[2].split() == ["~", "0.5", "80.0", "±", "9.0", "%", "2", "2,3"]
    assert lines[3].split() == ["~", "0.1", "70", "±", "10", "%", "−10.0", "±", "1.0", "points", "2", "0,1"]
    assert lines[5].split()[:4] == ["-1", "–", "0", "of"] and "job 4 failed: objective.temperature=-1 must" in lines[5]
    assert lines[-1] == "among the best: ssl-train objective.temperature=0.5"


@pytest.mark.parametrize("worst, apart", [(0.815, True), (0.97, False)])
def test_settings_with_the_same_seeds_are_compared_seed_by_seed(tmp_path, worst, apart):
    """Against scipy's test of paired samples. As independent samples these numbers cannot be told apart."""
    better, other = (0.70, 0.91, 0.82, 0.95), (0.60, 0.80, 0.70, worst)
    jobs = {f"train.clip={clip} seed={n}": v for clip, row in ((1, better), (2, other)) for n, v in enumerate(row)}
    sweep = write(tmp_path, jobs)
    assert (stats.ttest_rel(better, other).pvalue < 0.05) == apart and stats.ttest_ind(better, other).pvalue > 0.05
    assert [setting.mark for setting in sweep.settings] == (["best", ""] if apart else ["among the best"] * 2)


def test_the_width_of_an_interval_is_students():
    assert pytest.approx([stats.t.ppf(0.975, n) for n in range(1, 10)], abs=0.01) == results._STUDENT


def test_values_within_two_errors_are_among_the_best(tmp_path):
    sweep = write(tmp_path, {"objective.temperature=0.1 seed=0": 0.80, "objective.temperature=0.2 seed=0": 0.82})
    assert [setting.mark for setting in sweep.settings] == ["among the best"] * 2
    assert best_command(sweep) == "ssl-train objective.temperature=0.2 seed=0"


def test_losses_at_different_temperatures_are_not_ranked(tmp_path):
    jobs = {"objective.temperature=0.1 seed=0": 3.0, "objective.temperature=0.5 seed=0": 2.0}
    sweep = write(tmp_path, jobs, "held_out_loss", LOSS)
    assert "objective.temperature" in sweep.unranked and not best_command(sweep)
    assert f"not ranked: {sweep.unranked}" in table(sweep)
    jobs = {"train.clip=1 seed=0": 3.0, "train.clip=2 seed=0": 2.0}
    sweep = write(tmp_path / "other", jobs, "held_out_loss", LOSS)
    assert [setting.reading.value for setting in sweep.settings] == [2.0, 3.0] and sweep.settings[0].mark == "best"


def test_keys_that_may_change_make_no_row_of_their_own(tmp_path):
    sweep = write(tmp_path, {"train.clip=1 seed=0 log.every=5": 0.8, "train.clip=1 seed=1 log.every=9": 0.9})
    assert len(sweep.settings) == 1 and sweep.varied == ["seed"]
    assert sweep.settings[0].reading.value == pytest.approx(0.85)


def test_jobs_with_different_headlines_are_named_and_not_ranked(tmp_path):
    write(tmp_path, {"train.clip=1 seed=0": 0.8})
    sweep = write(tmp_path, {"train.clip=2 seed=0": 3.5}, "held_out_loss", LOSS)
    lines = table(sweep)
    assert "different headlines" in sweep.unranked and lines[1].split()[1] == "result"
    assert "knn_top1 80.0 ± 1.0 %" in lines[2] and "held_out_loss 3.50 ± 0.10" in lines[3]
    assert {"measured by: p", "measured by: held out"} <= set(lines)


def test_a_job_that_was_killed_is_not_said_to_run(tmp_path):
    numbers(tmp_path, [["seed=0"], ["seed=1"]], ["seed"])
    for number in (0, 1):
        write_outcome(tmp_path, number, Outcome(outcome=RUNNING))

    def entry():
        with locked(tmp_path / "1"):
            print("locked", flush=True)
            time.sleep(60)

    process = Forked(entry, "ssl-train")
    while "locked" not in process.output():
        assert process.poll() is None
        time.sleep(0.01)
    assert [job.outcome for job in read_sweep(tmp_path).jobs] == ["killed", RUNNING]
    process.kill()
    process.wait()
    assert [job.outcome for job in read_sweep(tmp_path).jobs] == ["killed", "killed"]


def test_the_files_hold_every_job(tmp_path):
    sweep = write(tmp_path, JOBS)
    write_csv(sweep)
    change(tmp_path, lambda content: write_results(sweep, content))
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["objective.temperature"], row["seed"], row["value"]) for row in rows] == [
        (*(text.split("=")[1] for text in job.split()), "" if isinstance(value, str) else str(value))
        for job, value in JOBS.items()
    ]
    assert (rows[0]["seconds"], rows[4]["outcome"], rows[4]["message"]) == ("2.5", "failed", JOBS[list(JOBS)[4]])
    written = json.loads((tmp_path / "sweep.json").read_text())
    assert [job["value"] for job in written["jobs"]] == [0.6, 0.8, 0.71, 0.89, None, 0.5]
    assert written["best"] == {"jobs": [2, 3], "command": "ssl-train objective.temperature=0.5"}
