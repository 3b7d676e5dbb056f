"""Where a process stands among those of its run, from the variables of torchrun and of Slurm."""

import zlib

import pytest

from sslcli.distributed.start import Start, first_host
from sslcli.errors import UserError

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "29400",
            "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "x",
            "TORCHELASTIC_RESTART_COUNT": "2"}  # fmt: skip
# Slurm 22.05, srun -N2 -n4 in a batch job of that was requeued once
STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_RESTART_COUNT": "1", "SLURM_PROCID": "3",
        "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "1",
        "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "4"}  # fmt: skip


def test_without_variables_a_process_is_alone():
    assert Start.read({}) == Start() and Start().first


def test_torchrun_says_where_its_own_process_listens():
    assert Start.read(TORCHRUN) == Start(3, 4, 1, "n1", 29400, "x.2", "torchrun", listens=False)


def test_a_step_of_slurm_meets_on_its_first_host():
    port = 20000 + zlib.crc32(b"7.0.1") % 20000
    assert Start.read(STEP) == Start(3, 4, 1, "n1", port, "7.0.1", "srun")


def test_another_start_of_the_job_and_another_step_meet_elsewhere():
    ports = [Start.read({**STEP, **other}).port for other in ({}, {"SLURM_RESTART_COUNT": "2"}, {"SLURM_STEP_ID": "1"})]
    assert len(set(ports)) == 3


def test_on_one_host_no_name_needs_to_be_resolved():
    assert Start.read({**STEP, "SLURM_STEP_NUM_NODES": "1"}).address == "localhost"
    assert Start.read({**STEP, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "99"}).address == "10.0.0.1"


def test_the_shell_of_a_batch_job_and_a_step_of_one_task_are_one_process():
    batch = {key: value for key, value in STEP.items() if "STEP" not in key}
    assert Start.read(batch) == Start() == Start.read({**STEP, "SLURM_STEP_NUM_TASKS": "1"})


def test_torchrun_inside_a_step_comes_first():
    assert Start.read({**STEP, **TORCHRUN}).by == "torchrun"


@pytest.mark.parametrize(
    ("hosts", "first"),
    [("n1", "n1"), ("n[1-2]", "n1"), ("n[01-03,7],m2", "n01"), ("a1,b[2-3]", "a1"), ("r[1-2]n[3-4]", "r1n3"), ("", "")],
)
def test_the_first_host_of_a_list(hosts, first):
    assert first_host(hosts) == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANK": None}, "WORLD_SIZE=4 is set, and RANK is not"),
        ({"WORLD_SIZE": None}, "RANK=3 is set, and WORLD_SIZE is not"),
        ({"RANK": "5", "WORLD_SIZE": "2"}, "RANK=5 must be from 0 to 1, for WORLD_SIZE=2"),
        ({"RANK": "-1"}, "RANK=-1 must be from 0 to 3"),
        ({"RANK": "one"}, "RANK='one', in the environment, is not a whole number"),
        ({"WORLD_SIZE": "2.0"}, "WORLD_SIZE='2.0'"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT='http'"),
        ({"MASTER_ADDR": None}, "not MASTER_ADDR and MASTER_PORT. Start with torchrun"),
    ],
)
def test_variables_that_contradict_each_other_are_told(changes, message):
    environ = {key: value for key, value in {**TORCHRUN, **changes}.items() if value is not None}
    with pytest.raises(UserError, match=message.replace("'", ".")):
        Start.read(environ)
