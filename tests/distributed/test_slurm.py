"""Jobs of a real Slurm stop, come back, and end in the same bits: the batch file, a sweep's launcher, a lost node."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from support.slurm import missing, two_nodes, until

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(missing()), reason=missing())]
SBATCH = str(Path(__file__).parents[2] / "scripts" / "slurm" / "train.sbatch")
RUN = (
    "debug=tiny", "encoder.norm=layer", "objective.norm=layer", "train.steps=100", "train.precision=fp32",
    "log.every=1", "checkpoint.every=100000", "probe=none", "log.report=false", "device=cpu", "device.threads=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with two_nodes(tmp_path_factory.mktemp("slurm")) as slurm:
        slurm.environment["XDG_CACHE_HOME"] = os.environ["XDG_CACHE_HOME"]
        slurm.environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        yield slurm


@pytest.fixture(scope="module")
def undisturbed(slurm):
    """The weights of a run of two processes, one a node."""
    step = slurm.start("srun", "-N2", "-n2", "ssl-train", *RUN, "run_dir=undisturbed")
    output, _ = step.communicate(timeout=300)
    assert step.returncode == 0 and "2 processes" in output, output
    return weights(slurm.folder / "undisturbed")


def weights(run_dir, step=100):
    state = torch.load(run_dir / "checkpoints" / f"step-{step:08d}.pt", weights_only=True)
    return {f"{part}.{name}": value for part in ("encoder", "objective") for name, value in state[part].items()}


def same_bits(one, two):
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def logged(run_dir):
    """The last step that the run has logged."""
    file = run_dir / "metrics.jsonl"
    found = re.findall(r'"step": (\d+)', file.read_text()) if file.exists() else []
    return int(found[-1]) if found else 0


def writer(run_dir):
    """The pid of the process that writes the run."""
    return json.loads((run_dir / "owner.json").read_text())["pid"]


def until_logged(run_dir, step):
    until(lambda: logged(run_dir) > step)


def saved(run_dir):
    return int(re.search(r"\d+", (run_dir / "checkpoints" / "last").read_text())[0])


def submit(slurm, name, *overrides):
    job = slurm.sbatch("-N2", "-t5", f"--output={name}.log", SBATCH, f"run_dir={name}", *RUN, *overrides)
    return job, slurm.folder / name, slurm.folder / f"{name}.log"


def test_three_starts_of_a_job_whose_time_is_nearly_over_go_on_and_on(slurm, undisturbed):
    """Each is shorter than ``checkpoint.every``, so all that it has learned is what it saves when it stops."""
    job, run_dir, log = submit(slurm, "limited")
    for start in range(2):
        before = saved(run_dir) if start else 0
        until_logged(run_dir, before + 2)
        slurm.call("scancel", "--signal=USR1", job)
        slurm.wait_for(job, f"PENDING {start + 1}")
        assert saved(run_dir) > before
    slurm.wait_for(job, "COMPLETED 2")
    assert log.read_text().count("resuming") == 2
    same_bits(weights(run_dir), undisturbed)


def test_a_job_makes_room_for_an_urgent_one_and_comes_back(slurm, undisturbed):
    job, run_dir, log = submit(slurm, "preempted")
    until_logged(run_dir, 2)
    urgent = slurm.sbatch("--partition=urgent", "-N2", "--exclusive", "--output=urgent.log", "--wrap=true")
    slurm.wait_for(urgent, "COMPLETED 0")
    assert "ssl-train: stopped at step" in log.read_text()
    slurm.wait_for(job, "COMPLETED 1")
    same_bits(weights(run_dir), undisturbed)


def test_a_killed_task_ends_its_job_and_the_same_command_goes_on(slurm, undisturbed):
    job, run_dir, log = submit(slurm, "killed", "checkpoint.every=20")
    until_logged(run_dir, 25)
    os.kill(task_of(slurm, job, rank=1), signal.SIGKILL)
    slurm.wait_for(job, "FAILED 0")
    assert 20 <= saved(run_dir) < 100 and not (run_dir / "result.json").exists()
    job, *_ = submit(slurm, "killed", "checkpoint.every=20")
    slurm.wait_for(job, "COMPLETED 0")
    assert "resuming" in log.read_text()
    same_bits(weights(run_dir), undisturbed)


def task_of(slurm, job, rank):
    """The pid of a task of a job."""
    for pid in slurm.call("scontrol", "listpids", job, "n1" if rank == 0 else "n2").splitlines()[1:]:
        number, _, step, local, _ = pid.split()
        if step == "0" and local == "0":
            return int(number)
    raise AssertionError("there is no such task")


def test_where_a_node_is_lost_the_second_start_takes_over_from_the_first(slurm):
    """slurmd dies and the processes that it has started go on, while Slurm starts the job again on the other node."""
    slurm.call("scontrol", "update", "nodename=n1", "state=drain", "reason=test")
    options = ("train.steps=1000000", "train.clip=1", "checkpoint.every=20", "run_dir=lost")
    job = slurm.sbatch("-n1", "-t5", "--output=lost.log", SBATCH, *RUN, *options)
    run_dir = slurm.folder / "lost"
    until_logged(run_dir, 20)
    first = writer(run_dir)
    slurm.call("scontrol", "update", "nodename=n1", "state=resume")
    slurm.kill_daemon("slurmd-n2")
    try:
        slurm.wait_for(job, "RUNNING 1")
        assert Path(f"/proc/{first}").exists()
        until(lambda: "resuming" in (slurm.folder / "lost.log").read_text())
        until(lambda: not Path(f"/proc/{first}").exists())
        resumed = saved(run_dir)
        until_logged(run_dir, resumed + 20)
        assert json.loads((run_dir / "owner.json").read_text())["restart"] == 1
        steps = [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        assert steps == list(range(1, len(steps) + 1))
        slurm.call("scancel", job)
        slurm.wait_for(job, "CANCELLED 1")  # which no batch file brings back
    finally:
        slurm.up("n2")


def test_a_sweep_goes_on_after_time_limits_and_learns_of_a_killed_job(slurm):
    """The jobs differ only in what is logged. The first is left alone, one runs out of time, and one is killed."""
    sweep = slurm.folder / "sweep"
    command = ("ssl-train", "-m", "hydra/launcher=slurm", "hydra.launcher.timeout_min=5", *RUN, "run_dir=sweep")
    parent = slurm.start(*command, "train.steps=250", "log.every=1,2,3", stderr=subprocess.PIPE)
    stops = {
        1: lambda array: slurm.call("scancel", "--signal=USR2", f"{array}_1"),
        2: lambda array: os.kill(writer(sweep / "2"), signal.SIGKILL),
    }

    def all_stopped():
        for number in [number for number in stops if logged(sweep / str(number)) > 2]:
            stops.pop(number)(max(slurm.call("squeue", "-h", "-o", "%F").split(), key=int))
        return not stops

    until(all_stopped)
    until(lambda: json.loads((sweep / "1" / "outcome.json").read_text())["outcome"] == "stopped")
    assert saved(sweep / "1") > 0
    _, errors = parent.communicate(timeout=300)
    assert parent.returncode == 1 and "1 of 3 jobs of the sweep failed" in errors, errors
    assert "Job 2: it wrote no outcome: it was killed" in errors
    same_bits(weights(sweep / "1", 250), weights(sweep / "0", 250))
