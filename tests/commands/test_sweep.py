"""How each job of a sweep ended stands in its folder and reaches the exit code, whichever process it ran in."""

import functools
import json
import multiprocessing
import os
import signal
import sys
import time

import pytest
from hydra.core.hydra_config import HydraConfig
from support.forked import Forked

from sslcli import cli, signals
from sslcli.commands.put_back import put_back
from sslcli.commands.sweep import sweep_ended
from sslcli.errors import UserError
from sslcli.run_dir.outcome import FAILED, OK, RUNNING, STOPPED, Outcome, write_outcome
from sslcli.run_dir.result_json import write_result


def swept(task, folder, *overrides):
    """The exit code and the output of ``ssl-train -m`` with ``task`` in the place of training."""
    entry = functools.partial(cli._main, "train", functools.partial(cli._run, task))
    process = Forked(entry, "ssl-train", "-m", f"run_dir={folder}", *overrides)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def outcomes(folder):
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*/outcome.json"))]
    return [(each["outcome"], each["message"], each["exit_code"]) for each in found]


def test_a_failed_job_fails_the_sweep_and_does_not_end_it(tmp_path):
    def task(config):
        if config.seed == 0:
            raise UserError("seed: the number 0 of http://me:secret@host is not liked")

    code, output = swept(task, tmp_path / "sweep", "seed=0,1")
    message = "seed: the number 0 of http://***@host is not liked"
    assert outcomes(tmp_path / "sweep") == [(FAILED, message, 2), (OK, "", 0)]
    assert code == 2, output
    last = f"1 of 2 jobs of the sweep failed ({tmp_path}/sweep/*/outcome.json). Job 0: {message}"
    assert output.splitlines()[-1] == f"ssl-train: error: {last}" and "Traceback" not in output


@pytest.mark.slow
def test_what_becomes_of_jobs_in_other_processes_reaches_the_sweep(tmp_path):
    """A signal stops one job, which says so; a killed one takes its process with it, and others are done by then."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    sweep = tmp_path / "sweep"

    def task(config):
        if config.seed == 0:  # a data worker can be started, too
            worker = multiprocessing.Process(target=os._exit, args=(3,))
            worker.start()
            worker.join()
            assert worker.exitcode == 3
        if config.seed == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
            raise AssertionError("the signal was not obeyed")
        if config.seed == 2:
            raise UserError("seed: no")
        if config.seed == 3:
            while len([path for path in sweep.glob("[012]/outcome.json") if "running" not in path.read_text()]) < 3:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

    code, output = swept(task, sweep, "seed=0,1,2,3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert outcomes(sweep) == [(OK, "", 0), (STOPPED, "SIGUSR1", 75), (FAILED, "seed: no", 2), (RUNNING, "", 0)]
    assert code == 1, output
    assert "2 of 4 jobs of the sweep failed" in output and "Job 2: seed: no" in output


@pytest.mark.slow
def test_the_same_command_goes_on_after_a_kill_and_new_values_get_new_folders(tmp_path):
    """What has finished is not run again; a job is found by its overrides, not by its place."""
    sweep, started = tmp_path / "sweep", tmp_path / "started"

    def task(config):
        with started.open("a") as file:
            file.write(f"{config.seed} ")
        if config.seed == 1 and not (tmp_path / "again").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        metrics = {"accuracy": {"value": config.seed / 10, "higher_is_better": True}}
        folder = sweep / HydraConfig.get().sweep.subdir
        write_result(folder, metrics, headline="accuracy", steps=1, seconds=1, seed=config.seed, uses_labels=False)
        return config.seed / 10

    assert swept(task, sweep, "seed=0,1,2")[0] == -signal.SIGKILL
    (tmp_path / "again").touch()
    code, output = swept(task, sweep, "seed=3,2,1,0")
    assert code == 0 and started.read_text().split() == ["0", "1", "3", "2", "1"], output
    found = {path.parent.name: json.loads(path.read_text())["metrics"] for path in sweep.glob("*/result.json")}
    assert {number: metrics["accuracy"]["value"] for number, metrics in found.items()} == {
        "0": 0.0, "1": 0.1, "2": 0.2, "3": 0.3,
    }  # fmt: skip
    lines = output.splitlines()
    assert lines[:2] == ["job 0 finished already", "job 3 seed=3: accuracy 30.00 %, 1 s of training"]


def test_what_a_job_prints_goes_to_its_folder_and_a_line_to_the_screen(tmp_path):
    def task(config):
        print("printed")
        os.write(2, b"written\n")
        os.system("echo by a child")
        if config.seed == 1:
            raise ZeroDivisionError("a bug")

    code, output = swept(task, tmp_path / "sweep", "seed=0,1")
    assert code == 1
    first, second, *rest = output.splitlines()
    assert first == "job 0 seed=0: done"
    assert second == "ssl-train: job 1 seed=1: error: ZeroDivisionError: a bug (a bug, its traceback is in job.log)"
    assert not {"printed", "written", "by a child"} & set(rest) and "Traceback" not in output
    logs = [(tmp_path / "sweep" / job / "job.log").read_text() for job in "01"]
    assert logs[0] == "printed\nwritten\nby a child\n"
    assert logs[1].startswith(f"{logs[0]}Traceback") and logs[1].endswith("ZeroDivisionError: a bug\n")


@pytest.mark.parametrize(
    "ended, code, said",
    [
        ([(OK, "", 0)], 0, ""),
        ([(OK, "", 0), (STOPPED, "SIGUSR1", 75)], 75, "1 of 2 jobs of the sweep stopped on a signal; the same command"),
        ([(STOPPED, "SIGUSR1", 75), (FAILED, "no", 2)], 2, "1 of 2 jobs of the sweep failed"),
        ([(FAILED, "no", 2), (FAILED, "ZeroDivisionError", 1)], 1, "2 of 2 jobs of the sweep failed"),
        ([(RUNNING, "", 0)], 1, "Job 0: it wrote no outcome"),
    ],
    ids=["done", "stopped", "a mistake", "a bug", "killed"],
)
def test_a_sweep_tells_the_worst_of_its_jobs(tmp_path, capsys, ended, code, said):
    for job, (outcome, message, exit_code) in enumerate(ended):
        write_outcome(tmp_path, job, Outcome(outcome=outcome, message=message, exit_code=exit_code, sweep="now"))
    write_outcome(tmp_path, 9, Outcome(outcome=FAILED, exit_code=1, sweep="of an earlier start"))
    assert sweep_ended("ssl-train", tmp_path, "now") == code
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_stopped_job_goes_back_into_the_queue_of_submitit(tmp_path):
    """Its handler of SIGUSR2 starts the job again, and ours, which saves, takes its place: ours must call it."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")

    def task(config):
        with (tmp_path / "starts").open("a") as file:
            file.write(f"{os.getpid()}\n")
        if len((tmp_path / "starts").read_text().splitlines()) < 3:
            os.kill(os.getpid(), signal.SIGUSR2)
            raise AssertionError("the signal was not obeyed")

    code, output = swept(task, tmp_path / "sweep", "hydra/launcher=submitit_local")
    assert code == 0 and outcomes(tmp_path / "sweep") == [(OK, "", 0)], output
    assert len(set((tmp_path / "starts").read_text().split())) == 3


@pytest.mark.parametrize("state, code, said", [("RUNNING", 144, ""), ("COMPLETING", 0, "bypassed\nit has ended\n")])
def test_sigterm_brings_back_a_job_that_makes_room_and_not_a_cancelled_one(tmp_path, state, code, said):
    """In an array the id of one job is that of the whole, too; Slurm answers for all of them."""
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\n[ "$*" = "show job -o 7_2" ] && echo "JobId=7 JobState={state}"\n')
    (tmp_path / "scontrol").chmod(0o755)

    def entry():
        signal.signal(signal.SIGUSR2, lambda *_: sys.exit(144))  # as submitit has them
        signal.signal(signal.SIGTERM, lambda *_: print("bypassed"))
        signals.install_in_job(speaks=False)
        put_back(signal.SIGTERM)
        print("it has ended")

    job = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    process = Forked(entry, "ssl-train", environment={**job, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert process.communicate() == (said, None) and process.returncode == code


def test_a_launcher_without_anything_to_launch_is_refused_before_anything_is_written(run, tmp_path, monkeypatch):
    code, _, err = run("hydra/launcher=slurm")
    assert code == 2 and err.endswith("starts the jobs of a sweep. Add -m, for a single job, too.\n")
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = run("-m", "hydra/launcher=slurm", "seed=0,1")
    assert code == 2 and "there is no sbatch on the PATH" in err
    monkeypatch.setitem(sys.modules, "submitit", None)
    code, _, err = run("-m", "hydra/launcher=slurm", "seed=0,1")
    assert code == 2 and err.endswith("Install it: pip install 'sslcli[slurm]'\n")
    assert list(tmp_path.iterdir()) == []
