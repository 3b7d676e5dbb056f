"""Jobs of a sweep side by side: how many, with what of the host, what a signal does, and what becomes of each."""

import functools
import json
import multiprocessing
import os
import signal
import time

import pytest
import torch
import torch._dynamo  # which an optimizer imports in every process that has not
from omegaconf import OmegaConf
from support.forked import Forked

from sslcli import cli, signals
from sslcli.data.shared_memory import ReadAhead, that_fits
from sslcli.distributed.start import available_cpus
from sslcli.errors import UserError
from sslcli.run_dir.metrics_jsonl import JsonLines
from sslcli.sweeps import parallel
from sslcli.sweeps.shares import Host, Wish, visible_gpus

TRAINING = ("debug=tiny", "dataset.num_samples=100", "dataset.size=16", "train.batch_size=16", "train.steps=6",
            "probe=none", "log.report=false", "device=cpu", "seed=0,1")  # fmt: skip


def started(task, folder, *overrides, environment=None):
    """``ssl-train -m hydra/launcher=parallel`` with ``task`` in the place of training."""
    entry = functools.partial(cli._main, "train", functools.partial(cli._run, task))
    options = ("-m", "hydra/launcher=parallel", f"run_dir={folder}", *overrides)
    return Forked(entry, "ssl-train", *options, environment=environment)


def swept(task, folder, *overrides, **more):
    process = started(task, folder, *overrides, **more)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def outcomes(folder):
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*/outcome.json"))]
    return [(each["outcome"], each["message"], each["exit_code"]) for each in found]


def wait_for(condition, process=None):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end and (process is None or process.poll() is None), process and process.output()
        time.sleep(0.005)


@pytest.mark.slow
def test_jobs_run_side_by_side_and_never_more_than_n(tmp_path):
    counts = tmp_path / "counts"

    def task(config):
        mine = tmp_path / f"on-{config.seed}"
        mine.touch()
        if config.seed < 2:  # which wait for each other
            wait_for(lambda: len(list(tmp_path.glob("on-*"))) >= 2)
        for _ in range(20):
            with counts.open("a") as file:
                file.write(f"{len(list(tmp_path.glob('on-*')))}\n")
            time.sleep(0.005)
        mine.rename(tmp_path / f"off-{config.seed}")
        return config.seed / 8

    code, output = swept(task, tmp_path / "sweep", "seed=0,1,2,3,4", "hydra.launcher.n=2")
    assert code == 0, output
    assert set(counts.read_text().split()) <= {"1", "2"} and len(list(tmp_path.glob("off-*"))) == 5


@pytest.mark.slow
def test_each_job_has_a_gpu_and_a_part_of_the_cpus(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    names = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"

    def task(config):
        found = [os.environ[name] for name in names]
        (tmp_path / f"{config.device.name}-{config.seed}").write_text(" ".join([*found, str(available_cpus())]))
        if config.device.name == "cpu":
            return
        (tmp_path / f"here-{config.seed}").touch()  # the GPUs are free again when both have had one
        wait_for(lambda: len(list(tmp_path.glob("here-*"))) >= 2)

    gpus = {"CUDA_VISIBLE_DEVICES": "3,5"}
    code, output = swept(task, tmp_path / "sweep", "device=auto,cpu", "seed=0,1", environment=gpus)
    assert code == 0, output
    assert {(tmp_path / f"auto-{seed}").read_text() for seed in (0, 1)} == {"3 4 4", "5 4 4"}
    assert {(tmp_path / f"cpu-{seed}").read_text() for seed in (0, 1)} == {" 2 2"}


def given(host, *wishes):
    return [share and share.environment.get("CUDA_VISIBLE_DEVICES") for share in map(host.take, wishes)]


def test_gpus_are_given_in_turn_and_taken_back(monkeypatch):
    monkeypatch.setattr("sslcli.sweeps.shares.available_cpus", lambda: 8)
    gpu, both, second, cpu = Wish("auto"), Wish("cuda", ranks=2), Wish("cuda:1"), Wish("cpu")
    host = Host(["3", "5"], None, 9)
    first = host.take(gpu)
    assert given(host, gpu, gpu, both) == ["5", None, None]
    host.give_back(first)
    assert given(host, both, gpu) == [None, "3"]
    assert given(Host(["3", "5"], 3, 9), gpu, gpu, gpu, gpu) == ["3", "5", "3", None]  # n=3 lets two share one
    assert given(Host(["3", "5"], None, 9), both, gpu) == ["3,5", None]
    assert given(Host(["3", "5"], None, 9), Wish("auto", ranks=0)) == ["3,5"]  # device.num=all
    host = Host(["3", "5"], None, 9)  # the user's own choice stays, and is known
    assert given(host, second, second, gpu) == [None, None, "3"] and host._running == 2
    assert given(Host(["3"], None, 9), cpu, cpu) == ["", ""] and given(Host([], None, 9), gpu) == [None]


def test_cpus_are_divided_by_the_jobs_at_once_unless_the_user_has_done_it(monkeypatch):
    monkeypatch.setattr("sslcli.sweeps.shares.available_cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")

    def threads(most, num_jobs, **wish):
        return Host([], most, num_jobs).take(Wish(**wish)).environment.get("OMP_NUM_THREADS")

    assert [threads(None, 3), threads(None, 20), threads(4, 3), threads(20, 20)] == ["2", "1", "2", "1"]
    assert threads(2, 3, threads=5) is None and threads(2, 3, ranks=2) is None  # the run's own process divides
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads(4, 3) == "3"


def test_jobs_at_once_share_shared_memory_as_ranks_do(monkeypatch):
    monkeypatch.setattr("sslcli.data.shared_memory.free_shared_memory", lambda: 10_000)
    assert that_fits(2, 1000, 0, print).workers == 2
    monkeypatch.setenv("SSLCLI_JOBS", "2")
    assert that_fits(2, 1000, 0, lambda _: None) == ReadAhead(1)


@pytest.mark.parametrize(
    "visible, names",
    [(None, ["0", "1"]), ("3,5", ["3", "5"]), ("GPU-a, MIG-b", ["GPU-a", "MIG-b"]), ("", []), ("2,-1,3", ["2"]),
     ("NoDevFiles", [])],
)  # fmt: skip
def test_gpus_are_those_that_cuda_would_see(visible, names):
    assert visible_gpus({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, 2) == names


def test_what_a_job_wishes_stands_in_its_config():
    device = {"name": "cuda", "num": "all", "threads": 2}
    assert Wish.of(OmegaConf.create({"device": device})) == Wish("cuda", 0, 2)
    assert Wish.of(OmegaConf.create({"device": {"name": "cpu", "num": 2}})) == Wish("cpu", 2)
    for without in ({}, {"device": {"name": "${nothing}", "num": "many"}}):  # the job tells it
        assert Wish.of(OmegaConf.create(without)) == Wish()


@pytest.mark.slow
def test_every_end_of_a_job_is_told_and_ends_no_other_one(tmp_path):
    """A data worker can be started, too, and one that is left alone holds nothing up."""

    def task(config):
        assert os.getsid(0) == os.getpid()  # so that the Ctrl-C of a terminal reaches it through the sweep only
        if config.seed == 0:
            worker = multiprocessing.Process(target=time.sleep, args=(30,), daemon=True)
            worker.start()
            (tmp_path / "worker").write_text(str(worker.pid))
            return 0.25
        if config.seed == 1:
            raise UserError("seed: no")
        if config.seed == 2:
            raise ZeroDivisionError
        if config.seed == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return float("nan")

    sweep = tmp_path / "sweep"
    code, output = swept(task, sweep, "seed=0,1,2,3,4", "hydra.launcher.n=2")
    os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)
    expected = [("ok", "", 0), ("failed", "seed: no", 2), ("failed", "ZeroDivisionError", 1), ("running", "", 0)]
    assert outcomes(sweep) == [*expected, ("ok", "", 0)]
    assert code == 1, output
    assert f"{sweep.name}: 5 jobs (2 ok, 2 failed, 1 " in output and len((sweep / "sweep.csv").open().readlines()) == 6
    assert "was killed by SIGKILL, as the kernel does where memory is full" in output and "seed: no" in output


def test_what_no_outcome_tells_is_told_by_the_sweep(tmp_path):
    sweep = tmp_path / "sweep"
    (sweep / "0" / "outcome.json").mkdir(parents=True)  # where nothing can be written, then
    code, output = swept(lambda _: None, sweep, "seed=0,1")
    assert code == 2 and output.count("\n") == 3 and f"{sweep}/0/outcome.json is not a regular" in output, output
    assert (sweep / "1" / "outcome.json").is_file()


@pytest.mark.slow
def test_a_job_that_is_killed_before_it_began_is_told(tmp_path, monkeypatch):
    """Its folder may have the outcome of an earlier start, which says nothing about this one."""
    sweep = tmp_path / "sweep"
    assert swept(lambda _: os._exit(1), sweep, "seed=0")[0] == 1 and outcomes(sweep) == [("running", "", 0)]
    monkeypatch.setattr(parallel, "run_job", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    code, output = swept(lambda _: None, sweep, "seed=0")
    assert code == 2 and f"{sweep}/0: the job was killed before it began" in output


@pytest.mark.parametrize("n", ["0", "many", "1.5"])
def test_a_number_of_jobs_that_is_none_is_refused_before_anything_is_written(tmp_path, n):
    code, output = swept(lambda _: None, tmp_path / "sweep", "seed=0,1", f"hydra.launcher.n={n}")
    assert code == 2 and output.count("\n") == 1, output
    assert f"hydra.launcher.n: '{n}' is not a number of jobs at once" in output
    assert not (tmp_path / "sweep").exists()


def held(step, config):
    """Training that stands still in a step until a signal comes."""
    write = JsonLines.write

    def waits(self, line):
        write(self, line)
        if line["step"] == step:
            wait_for(signals.pending)

    JsonLines.write = waits
    return cli._train(config)


def held_at(step, sweep):
    process = started(functools.partial(held, step), sweep, *TRAINING, "hydra.launcher.n=2")
    lines = [sweep / job / "metrics.jsonl" for job in "01"]
    wait_for(lambda: all(line.is_file() and line.read_text().count("\n") == step for line in lines), process)
    return process


def weights(sweep):
    found = {}
    for path in sorted(sweep.glob("*/checkpoints/step-00000006.pt")):
        state = torch.load(path, weights_only=True)
        found[path.parts[-3]] = {key: state[key] for key in ("encoder", "objective", "optimizer")}
    return found


@pytest.mark.slow
def test_a_signal_reaches_every_job_once_and_no_other_one_is_started(tmp_path):
    def task(config):
        (tmp_path / f"on-{config.seed}").touch()
        try:
            wait_for(lambda: False)
        except signals.Stopped:
            (tmp_path / f"off-{config.seed}").touch()
            time.sleep(0.2)  # a second one would raise it again
            raise

    sweep = tmp_path / "sweep"
    process = started(task, sweep, "seed=0,1,2", "hydra.launcher.n=2")
    wait_for(lambda: len(list(tmp_path.glob("on-*"))) == 2, process)
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 75 and "Traceback" not in output, output
    assert outcomes(sweep) == [("stopped", "SIGTERM", 75)] * 2 and not (sweep / "2").exists()
    assert len(list(tmp_path.glob("off-*"))) == 2


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_jobs_at_once(tmp_path):
    def task(config):
        with signals.deferred():
            (tmp_path / f"on-{config.seed}").touch()
            wait_for(signals.pending)
            (tmp_path / f"heard-{config.seed}").touch()
            wait_for(lambda: False)

    process = started(task, tmp_path / "sweep", "seed=0,1", "hydra.launcher.n=2")
    for sign in ("on", "heard"):
        wait_for(lambda: len(list(tmp_path.glob(f"{sign}-*"))) == 2, process)  # noqa: B023
        os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130 and "of 2 jobs 2 stopped, 0 not started" in output, output


@pytest.mark.slow
def test_a_sweep_that_is_stopped_and_killed_goes_on_to_the_same_bits(tmp_path):
    sweep, undisturbed = tmp_path / "sweep", tmp_path / "undisturbed"
    stopped = held_at(2, sweep)
    os.kill(stopped.pid, signal.SIGINT)
    output, _ = stopped.communicate()
    assert stopped.returncode == 130 and "Traceback" not in output, output
    assert "ssl-train: SIGINT: 2 jobs stop after their step, which is saved; Ctrl-C twice exits at once" in output
    last = "ssl-train: stopped by SIGINT: of 2 jobs 2 stopped, 0 not started; the same command continues"
    assert output.splitlines()[-1] == last and outcomes(sweep) == [("stopped", "SIGINT", 130)] * 2
    assert all((sweep / job / "checkpoints" / "step-00000002.pt").is_file() for job in "01")
    killed = held_at(4, sweep)
    killed.kill()
    for folder in (sweep, undisturbed):  # the first one waits for the jobs, which still save
        code, output = swept(cli._train, folder, *TRAINING, "hydra.launcher.n=2")
        assert code == 0 and outcomes(folder) == [("ok", "", 0)] * 2, output
    assert all((sweep / job / "train.log").read_text().count("resuming") == 2 for job in "01")
    found, expected = weights(sweep), weights(undisturbed)
    assert found.keys() == expected.keys() == {"0", "1"}
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    killed.wait()
