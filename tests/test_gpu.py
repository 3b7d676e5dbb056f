"""On a GPU: the numbers of a CPU, half precision, compilation, the same bits again, and no waiting in a step."""

import math
import os
import subprocess
import sys
import time

import pytest
import torch
from support.helpers import TINY, compose
from support.layouts import CASES
from support.overflow import assert_overflows_and_goes_on

from sslcli.commands.build_trainer import make_trainer
from sslcli.components import Components, build_components
from sslcli.config.instantiate import build
from sslcli.distributed.ranks import Ranks
from sslcli.evaluation.base import Probe
from sslcli.evaluation.measure import measure
from sslcli.randomness import Randomness
from sslcli.run_dir import checkpoint
from sslcli.run_dir.console import Console
from sslcli.training.device import choose

pytestmark = pytest.mark.gpu
GPU = "cuda"
FP32 = (*TINY, "train.precision=fp32", "optimizer=sgd", "optimizer.lr=0.05", "train.steps=100", "log.every=1000")
ENCODERS = {
    "convnet_small": (),
    "convnet_small, pooled": ("dataset.size=28", "encoder.cells=3"),
    "resnet18": ("encoder=resnet18",),
    "resnet18, standard stem": ("encoder=resnet18", "encoder.stem=standard", "dataset.size=32"),
    "vit_tiny": ("encoder=vit_tiny",),
    "swin_tiny": ("encoder=swin_tiny",),
    "convnext_tiny": ("encoder=convnext_tiny",),
}


def trainer_on(device, run_dir, *overrides, ranks=None):
    """What ``ssl-train device=... *overrides`` trains with, at step 0."""
    config = compose(f"device={device}", *overrides)
    compute = choose(device, config.train.precision)
    trainer = make_trainer(config, build_components(config), compute, run_dir, Console(silent=True), ranks or Ranks())
    trainer.encoder.train()
    trainer.objective.train()
    return trainer


def first_step(trainer):
    """The loss of step 0 and every gradient, on the host."""
    loss, _ = trainer.gradients(next(trainer.loader.batches(0)))
    gradients = {
        f"{part}.{name}": p.grad.double().cpu()
        for part, module in (("encoder", trainer.encoder), ("objective", trainer.objective))
        for name, p in module.named_parameters()
        if p.grad is not None
    }
    return loss.total.double().cpu().detach(), gradients


def assert_same_step(run_dir, *overrides):
    expected_loss, expected = first_step(trainer_on("cpu", run_dir, *overrides))
    found_loss, found = first_step(trainer_on(GPU, run_dir, *overrides))
    torch.testing.assert_close(found_loss, expected_loss, rtol=1e-4, atol=1e-5)
    assert found.keys() == expected.keys()
    whole = math.sqrt(sum(float(g.square().sum()) for g in expected.values()))
    assert whole > 0
    for name, gradient in expected.items():
        difference = float((found[name] - gradient).norm())
        assert difference <= 2e-3 * float(gradient.norm()) + 1e-4 * whole, f"{name}: off by {difference:.2e}"


@pytest.fixture
def exact_convolutions(monkeypatch):
    """TF32, which convolutions use by default, has a mantissa of 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("case", CASES)
def test_a_step_of_every_objective_is_that_of_a_cpu(tmp_path, exact_convolutions, case):
    assert_same_step(tmp_path, *FP32, "encoder.norm=layer", *CASES[case])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_step_of_every_encoder_is_that_of_a_cpu(tmp_path, exact_convolutions, encoder):
    assert_same_step(tmp_path, *FP32, *ENCODERS[encoder])


def test_micro_batches_are_that_of_a_cpu_too(tmp_path, exact_convolutions):
    assert_same_step(tmp_path, *FP32, "encoder.norm=layer", "objective.norm=layer", "train.accumulate=4")


@pytest.mark.parametrize("views", ["simclr", "small", "simmim"])
def test_views_are_those_of_a_cpu(tmp_path, views):
    found = {}
    for device in ("cpu", GPU):
        trainer = trainer_on(device, tmp_path, *TINY, f"views={views}", "objective=joint")
        randomness = Randomness(0, 0, trainer.loader.positions(0), trainer.compute.device)
        found[device] = trainer.views(next(trainer.loader.batches(0))[0], randomness)
    for expected, view in zip(found["cpu"], found[GPU]):
        torch.testing.assert_close(view.x.cpu(), expected.x, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(view.target.cpu(), expected.target, rtol=1e-4, atol=1e-4)


TRAINED = {
    "infonce": (),
    "moco 3": ("objective=moco", "objective.version=3"),
    "resnet18": ("encoder=resnet18",),
    "simmim of a ViT": ("objective=simmim", "encoder=vit_tiny", "optimizer.lr=0.001"),
    "visible only": (*CASES["visible only"], "optimizer.lr=0.001"),
    "infomax": ("objective=infomax",),
    "joint": ("objective=joint",),
}


def losses(run_dir, steps, *overrides):
    trainer = trainer_on(
        GPU, run_dir, *TINY, "train.batch_size=64", f"train.steps={steps}", "log.every=1000", *overrides
    )
    batches = trainer.loader.batches(0)
    return torch.stack([trainer.train_step(next(batches))[0].total.detach() for _ in range(steps)]).float().cpu()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("case", TRAINED)
def test_half_precision_trains(tmp_path, case, precision):
    found = losses(tmp_path, 100, f"train.precision={precision}", *TRAINED[case])
    assert found.isfinite().all()
    assert found[-15:].mean() < found[:15].mean()


@pytest.mark.parametrize("case", ["infonce", "moco"])
def test_fp16_skips_the_steps_that_overflow_and_goes_on(tmp_path, case):
    """With a scale that is far too large: no weight and no queue moves until the scaler has lowered it."""
    options = ("objective=moco", "objective.queue=64") if case == "moco" else ()
    trainer = trainer_on(GPU, tmp_path, *TINY, "train.precision=fp16", "train.steps=100", "log.every=1000", *options)
    assert_overflows_and_goes_on(trainer)


@pytest.mark.parametrize("case", ["infonce", "resnet18", "simmim of a ViT", "visible only"])
def test_a_compiled_encoder_trains(tmp_path, case):
    found = losses(tmp_path, 60, "train.compile=true", "train.precision=bf16", *TRAINED[case])
    assert found.isfinite().all()
    assert found[-10:].mean() < found[:10].mean()


def command_of(run_dir, *overrides):
    command = [sys.executable, "-c", "from sslcli.cli import train; train()", f"device={GPU}", f"run_dir={run_dir}"]
    options = ["train.steps=8", "train.deterministic=true", "checkpoint.every=4", "probe=none", "log.report=false"]
    return [*command, *TINY, *options, *overrides]


def plain_environment():
    return {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}


def train(run_dir, *overrides):
    """``ssl-train`` in a process of its own: cuBLAS reads its settings when it starts."""
    command = command_of(run_dir, *overrides)
    done = subprocess.run(command, capture_output=True, text=True, env=plain_environment(), timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return checkpoint.steps(run_dir)


def tensors(node, prefix=""):
    if isinstance(node, torch.Tensor):
        yield prefix, node
    elif isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from tensors(value, f"{prefix}/{key}")


RESUMED = {
    "convnet_small": (),
    "convnet_small, pooled": ENCODERS["convnet_small, pooled"],
    "resnet18, standard stem": ENCODERS["resnet18, standard stem"],
    "drop path": ("encoder=vit_tiny", "encoder.drop_path=0.2"),
    "simmim of a ViT": CASES["simmim of a ViT"],
    "simmim of a CNN": ("objective=simmim", "encoder.cells=3"),
    "visible only": CASES["visible only"],
    "moco": ("objective=moco", "objective.queue=64"),
    "supervised": CASES["supervised"],
    "infomax": ("objective=infomax",),
    "fp32": ("train.precision=fp32", "encoder=vit_tiny"),
    "fp16": ("train.precision=fp16",),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_deterministic_run_resumes_to_the_same_bits(tmp_path, case):
    whole = train(tmp_path / "whole", *RESUMED[case])
    middle = next(path for path in whole if checkpoint.step_of(path) == 4)
    resumed = train(tmp_path / "resumed", *RESUMED[case], f"resume={middle}")
    states = [dict(tensors(torch.load(paths[0], map_location="cpu"))) for paths in (whole, resumed)]
    assert checkpoint.step_of(whole[0]) == checkpoint.step_of(resumed[0]) == 8
    assert states[0].keys() == states[1].keys()
    different = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    assert not different


def test_a_killed_run_ends_in_the_same_bits(tmp_path):
    """SIGKILL after the second checkpoint, then the same command."""
    options = ("train.steps=400", "checkpoint.every=4")
    whole = train(tmp_path / "whole", *options)
    process = subprocess.Popen(command_of(tmp_path / "killed", *options), env=plain_environment())
    end = time.monotonic() + 120
    while len(checkpoint.steps(tmp_path / "killed")) < 2:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert checkpoint.step_of(checkpoint.steps(tmp_path / "killed")[0]) < 400
    killed = train(tmp_path / "killed", *options)
    one, other = (dict(tensors(torch.load(paths[0], map_location="cpu"))) for paths in (whole, killed))
    assert one.keys() == other.keys() and not [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("objective", ["infonce", "moco"])
def test_nccl_with_one_process_takes_the_same_step(tmp_path, objective, exact_convolutions):
    """Gathers, sums and broadcasts go through NCCL; the micro-batches are two, so that rows are gathered."""
    norms = ("encoder.norm=layer", *(("objective.norm=layer",) if objective == "infonce" else ()))
    options = (*FP32, *norms, f"objective={objective}", "train.accumulate=2", "train.deterministic=true")
    alone = first_step(trainer_on(GPU, tmp_path, *options))
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    try:
        grouped = first_step(trainer_on(GPU, tmp_path, *options, ranks=Ranks(in_group=True)))
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(grouped[0], alone[0], rtol=1e-6, atol=0)
    for name, gradient in alone[1].items():
        torch.testing.assert_close(grouped[1][name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", [*CASES, *ENCODERS])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_step_waits_for_the_gpu(tmp_path, case, precision):
    options = {**CASES, **ENCODERS}[case]
    trainer = trainer_on(GPU, tmp_path, *FP32, f"train.precision={precision}", "train.clip=1", *options)
    assert_never_waits(trainer)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_no_optimizer_and_no_micro_batch_waits(tmp_path, optimizer, accumulate):
    options = (*TINY, "train.steps=100", "log.every=1000", f"optimizer={optimizer}", f"train.accumulate={accumulate}")
    assert_never_waits(trainer_on(GPU, tmp_path, *options))


def assert_never_waits(trainer):
    batches = trainer.loader.batches(0)
    for _ in range(3):  # constants are copied, kernels chosen
        trainer.train_step(next(batches))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            trainer.train_step(next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_every_probe_reads_what_it_reads_on_a_cpu(tmp_path):
    """kNN, linear and geometry to rounding; fine-tuning and the critics take other ways after a few steps."""
    quick = ("probe=all", "probe.parts.knn.max_samples=all", "probe.parts.linear.steps=200", "probe.parts.mi.steps=50",
             "probe.parts.mi.batch_size=40", "probe.parts.finetune.epochs=1")  # fmt: skip
    found = {}
    for device in ("cpu", GPU):
        config = compose(*FP32, "dataset.num_samples=500", *quick)
        trainer = trainer_on(device, tmp_path, *FP32, "dataset.num_samples=500")
        parts = Components(build_components(config).dataset, trainer.encoder, trainer.objective, trainer.views)
        probe = build(config.probe.node, Probe, where="probe")
        found[device] = measure(config, parts, trainer.compute, probe, budget=15.0).metrics
    assert found[GPU].keys() == found["cpu"].keys()
    for name, metric in found["cpu"].items():
        if name.startswith(("knn", "linear")):
            assert found[GPU][name].value == pytest.approx(metric.value, abs=0.02), name
        elif not name.startswith(("mi", "finetune")):
            assert found[GPU][name].value == pytest.approx(metric.value, rel=0.02), name
