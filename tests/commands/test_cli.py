"""What the commands say: one or two lines that name the key and the way out, exit code 2, no traceback."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest
import torch
from PIL import Image
from support.marks import rest_is_slow

NO_PAGE = ("log.report=false",)  # drawing it takes longer than these runs
FAST = ("debug=tiny", "train.steps=2", "dataset.size=16", "dataset.num_samples=100", "probe=none", "device=cpu",
        *NO_PAGE)  # fmt: skip


MISTAKES = {
    "-m encoder=vit_tiny,vit_micro encoder.patch_size=4": "Write ++encoder.patch_size=4; each job must have the key.",
    "-m run_dir=a,b seed=0,1": "run_dir=a,b: the jobs of a sweep lie in one folder, RUN_DIR/0, RUN_DIR/1, ...",
    # names
    "objective=simim": "objective: there is no option 'simim'. Did you mean 'simmim'?",
    "experiment=nope": "experiment: there is no option 'nope'",
    "objective.temprature=0.2": "Unknown key 'objective.temprature'. Did you mean 'temperature'?",
    "+objective.temprature=0.2": "Unknown key 'objective.temprature'. Did you mean 'temperature'?",
    "train.batchsize=3": "Unknown key 'train.batchsize'. Did you mean 'batch_size'?",
    "++train.batchsize=3": "Unknown key 'train.batchsize'. Did you mean 'batch_size'?",
    "+foo=1": "Unknown key 'foo'",
    "optimiser.lr=1": "Unknown key 'optimiser'. Did you mean 'optimizer'?",
    "--multrun": "There is no flag '--multrun'. Did you mean '--multirun'?",
    "train.steps": "'train.steps' is not key=value",
    "train.steps=[1": "'train.steps=[1' is not key=value",
    "train=5": "train is a section",
    "device.num=1.5": "device.num: '1.5' is not a whole number or a text",
    "device.num=two": "device.num='two' is neither a whole number nor all",
    "device.strategy=fsdp": "device.strategy: there is no 'fsdp'.",
    "device.num=0": "device.num=0 must be at least 1",
    "device.num=3": "device.num=3 processes and train.accumulate=1 do not divide train.batch_size=",
    "encoder=5": "encoder=5: a group takes the name of an option",
    "encoder=mlp encoder=convnet_small": "encoder is given twice, as mlp and as convnet_small",
    "logger=[null]": "logger=[null]: a group takes the name of an option",
    "hydra.run.dir=x": "hydra.run.dir is set by this program",
    "seed=${seed}": "seed: it refers to itself",
    "seed=1606938044258990275541962092341162602522202993782792835301376": "at most 64 bits",
    "encoder.width=1000000000": "The largest numbers are encoder.width=1000000000",
    # types
    "train.steps=abc": "train.steps: 'abc' is not a whole number",
    "train.clip=big": "train.clip: 'big' is not a number",
    "train.compile=maybe": "train.compile: 'maybe' is not true or false",
    "objective.temperature=hot": "objective.temperature: 'hot' is not a number",
    "encoder.width=1.5": "encoder.width: 1.5 is not a whole number",
    "objective.norm=group": "objective.norm: 'group' is not one of batch, layer, none",
    "plugins=nopkg": "plugins must be a list",
    # values
    "objective.temperature=0": "objective.temperature=0 must be from 0.0001 to 10000",
    "objective=simmim objective.mask_ratio=1.5": "objective.mask_ratio=1.5 must be from 0 to 1",
    "objective=simmim objective.mask_patch=5": "mask_patch=5 does not divide the 16 x 16 image",
    "objective=simmim objective.visible_only=true": "visible_only needs an encoder that can leave tokens out, a ViT",
    "objective.form=supervised": "form=supervised and label=NAME belong together",
    "objective.form=supervised objective.label=image": "the dataset has a column of that name",
    "objective.form=supcon": "objective.form: 'supcon' is not one of nt_xent, cross_view",
    "objective.learn_temperature=true objective.temperature=2": "stays between 0.01 and 1.0",
    "objective=moco objective.queue=20000": "queue=20000 is larger than the 10000 training samples",
    "objective=moco objective.version=3 objective.queue=64": "version=3 has no queue",
    "objective=moco objective.bn_splits=3": "bn_splits=3 does not divide the micro-batch of 256",
    "objective=infomax objective.estimator=gaussian objective.critic=concat": "gaussian",
    "objective=infomax objective.estimator=infonse": "objective.estimator: 'infonse' is not one of infonce, jsd",
    "objective=infomax objective.sigma=0 objective.pairs=noise": "sigma=0 must be",
    "objective=infomax objective.estimator=gaussian objective.shrinkage=0": "shrinkage=0 must be positive",
    "objective=infomax objective.sigma=nan": "objective.sigma: nan is not a number",
    "objective.temperature=nan": "objective.temperature: nan is not a number",
    "objective=joint objective.weights.simmim=nan": "objective.weights={'infonce': 1.0, 'simmim': nan} must be finite",
    "objective=joint objective.weights.simmim=-1": "weights.simmim must not be negative",
    "objective=joint objective.balance=chance +objective@objective.parts.byol=byol "
    "+objective.weights.byol=1": "'byol' has no chance level",
    "objective=joint objective.balance=chance +objective@objective.parts.mi=infomax +objective.weights.mi=1 "
    "objective.parts.mi.estimator=nwj": "'mi' has no chance level",
    "objective=joint_masked objective.parts.moco.version=2 objective.parts.moco.bn_splits=2": "bn_splits=1",
    "objective=joint objective.share=masked": "'infonce' has no teacher",
    "objective=joint objective.weights.simmim=much": "neither a number nor a ramp",
    "log.quality=best": "log.quality: there is no 'best'",
    "views.flip=2": "flip=2 is not a probability",
    "train.steps=0": "train.steps=0 must be positive",
    "train.batch_size=0": "train.batch_size=0 must be at least 1",
    "train.batch_size=20000": "train.batch_size=20000 is more than the 10000 training samples",
    "train.batch_size=1": "give at least 2",
    "train.accumulate=3": "train.accumulate=3 does not divide train.batch_size=256",
    "train.precision=fp17": "train.precision: there is no 'fp17'. Did you mean 'fp16'?",
    "train.precision=fp16 device=cpu": "fp16 needs a GPU",
    "train.steps=3 train.epochs=2": "train.steps and train.epochs are both given",
    "checkpoint.every=0": "checkpoint.every=0 must be at least 1",
    "optimizer.lr=-1": "optimizer.lr=-1 must be at least 0",
    "schedule.warmup=2": "schedule.warmup=2 must be from 0 to 1",
    "dataset.holdout=2": "dataset.holdout: 2 is not a fraction",
    "dataset.workers=-1": "dataset.workers=-1",
    "probe.every=0": "probe.every=0 must be at least 1",
    "probe.share=2": "probe.share=2 must be above 0, at most 1",
    "probe.patience=3": "probe.patience=3 needs a metric: set checkpoint.keep_best",
    "checkpoint.keep_best=knn_top1": "set probe.every=STEPS",
    "checkpoint.keep_best=knn_top probe.every=5": "there is no 'knn_top' to keep by. Did you mean 'knn_top1'?",
    "probe=linear probe.lrs=[0]": "lrs=[0] must be positive",
    "probe=all probe.parts.knn.k=0": "probe.parts.knn: k=0 must be",
    "probe=all probe.parts.knn.neighbours=3": "Unknown key 'probe.parts.knn.neighbours'",
    "probe.max_samples=some": "max_samples=some must be a whole number, all or auto",
    "views.scale=[1,0.2]": "views: scale=[1, 0.2]",
    # combinations that make no sense
    "encoder=vit_tiny encoder.patch_size=5": "patch_size=5 does not divide image_size=28; use one of 1, 2, 4",
    "encoder=vit_tiny encoder.norm=batch": "has no BatchNorm",
    "encoder=resnet18 encoder.patch_size=4": "resnet18 has no patches",
    "encoder=timm encoder.name=resnet19": "timm has no model 'resnet19'. Near: resnet18",
    "encoder=mlp objective=simmim": "no image tokens",
    "encoder=mlp objective=joint": "no image tokens",
    "objective=simmim encoder=vit_tiny objective.mask_patch=5": "mask_patch=5 does not divide",
    "objective=simmim encoder=vit_tiny objective.mask_patch=2": "not a multiple of the encoder's patch of 4",
    "views=columns": "holds images",
    "objective=joint ~objective.weights.simmim": "the part 'simmim' has no weight",
    "objective=joint +objective.weights.foo=1": "weights.foo has no part",
    # places and devices
    "device=cuda": "there is no CUDA device",
    "device.name=tpu": "'tpu' is not a device",
    "dataset=images": "dataset.path is needed",
    "dataset=images dataset.path=nowhere": "dataset.path: there is no folder nowhere",
    "dataset=images dataset.path=.": "dataset.path: . holds no picture",
    "dataset=fashion_mnist dataset.path=.": "dataset.path: there is no 'train-images-idx3-ubyte'",
    "dataset=cifar10 dataset.path=. dataset.download=false": "dataset.path: there is no cifar-10-batches-py",
    "run_dir=/dev/null/x train.steps=1": "run_dir: /dev/null/x cannot be written",
    "resume=nowhere": "resume: there is no run with a checkpoint in nowhere",
    "logger=cvs": "logger: there is no option 'cvs'. Did you mean 'csv'?",
    "logger=csv +logger.csv.path=x": "Unknown key 'logger.csv.path'",
    "logger=tensorboard logger.tensorboard.flush=0": "logger.tensorboard: flush=0 must be at least 1 second",
    "run_dir=${nope}": "run_dir refers to 'nope'",
    "device.name=meta": "'meta' is not a device",
    "~train.batch_size": "train.batch_size cannot be taken away",
    "train.epochs=inf": "train.epochs=inf must be positive and finite",
    "~train": "train: this section is needed",
    "log.every=null": "log.every must have a value",
    "objective=joint objective.parts.infonce=5": "5 is not a section",
    "encoder=timm encoder.name=vgg11 encoder.stem=standard": "vgg11 cannot read images of 28 pixels",
    "encoder=timm encoder.name=repvgg_a0": "repvgg_a0 has no known small stem. Set encoder.stem=standard",
    "encoder=timm encoder.name=mixer_s32_224": "its patches have one size. Set encoder.stem=standard",
    "objective._target_=sslcli.objectives.infonce.InfoNC": "Did you mean 'sslcli.objectives.infonce.InfoNCE'?",
    "objective._target_=sslcli.objectives.infonc.InfoNCE": "there is no module 'sslcli.objectives.infonc'",
    "objective._target_=InfoNCE": "Write package.module.InfoNCE.",
    "encoder=resnet18 train.batch_size=4 train.accumulate=4": "BatchNorm needs micro-batches of at least 2",
    "dataset=images dataset.path=~/not/there": "dataset.path: there is no folder /",
    # foreign code
    "plugins=[a.py]": "there is no package 'a.py'",
    "plugins=[../x]": "'../x' is not the name of a package",
    "objective._target_=sslcli.__version__": "neither a class nor a function",
    "objective._target_=os.system": "'os.system' is outside sslcli",
    "objective._target_=sslcli.objectives.infonce.Nope": "has no 'Nope'",
    "plugins=[nopkg]": "there is no package 'nopkg'",
}


@pytest.mark.parametrize("line", rest_is_slow(MISTAKES, *list(MISTAKES)[::3]))
def test_a_mistake_is_told_in_one_or_two_lines(run, line, tmp_path):
    if torch.cuda.is_available() and "CUDA" in MISTAKES[line]:
        return
    code, _, err = run(*line.split(" "))
    assert code == 2
    assert MISTAKES[line] in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []  # nothing was started


def test_the_default_name_finds_the_same_run(run, tmp_path):
    code, out, _ = run(*FAST)
    assert code == 0
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert run_dir.name.startswith("infonce-convnet_small-synthetic-")
    for name in ("config.yaml", "train.log", "metrics.jsonl", "checkpoints/last", "result.json"):
        assert (run_dir / name).is_file()
    result = json.loads((run_dir / "result.json").read_text())
    assert result["steps"] == 2 and "rankme" in result["metrics"]
    code, out, _ = run("device.threads=1", *FAST)
    assert code == 0 and "is finished" in out
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_resume_never_keeps_what_was_there(run, tmp_path):
    run(*FAST, "run_dir=r")
    before = (tmp_path / "r" / "metrics.jsonl").read_bytes()
    code, out, _ = run(*FAST, "run_dir=r", "resume=never")
    assert code == 0 and "starting afresh" in out
    assert (tmp_path / "r" / "previous" / "1" / "metrics.jsonl").read_bytes() == before
    assert (tmp_path / "r" / "result.json").is_file()


def test_another_config_is_refused_and_a_longer_run_is_not(run):
    run(*FAST, "run_dir=r")
    code, _, err = run(*FAST, "run_dir=r", "objective.temperature=0.3")
    assert code == 2 and "objective.temperature: 0.2 -> 0.3" in err
    code, out, _ = run(*FAST, "run_dir=r", "train.steps=3", "log.every=2")
    assert code == 0 and "train.steps: 2 -> 3" in out and "log.every: 1 -> 2" in out
    code, _, err = run(*FAST, "run_dir=r", "train.steps=1")
    assert code == 2 and "can only be made longer" in err


@pytest.mark.slow
def test_minutes_follow_the_clock_over_all_processes(run, tmp_path):
    options = (
        "debug=tiny",
        "dataset.size=16",
        "probe=none",
        "device=cpu",
        "run_dir=r",
        "log.every=5",
        "log.report=false",
    )
    code, out, _ = run(*options, "train.minutes=0.02")
    assert code == 0
    first = json.loads((tmp_path / "r" / "result.json").read_text())
    assert first["seconds"] >= 1.2 and first["steps"] >= 1  # and as much more as a slow step took
    code, out, _ = run(*options, "train.minutes=0.02")
    assert code == 0 and "is finished" in out
    wanted = first["seconds"] + 1
    code, out, _ = run(*options, f"train.minutes={wanted / 60}")
    longer = json.loads((tmp_path / "r" / "result.json").read_text())
    assert code == 0 and longer["seconds"] >= wanted and longer["steps"] > first["steps"]


def test_resume_from_a_path_starts_there(run, tmp_path):
    run(*FAST, "run_dir=a")
    code, out, _ = run(*FAST, "run_dir=b", "resume=a", "train.steps=4")
    assert code == 0 and "at step 2" in out
    assert [json.loads(x)["step"] for x in (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()] == [3, 4]


@pytest.mark.parametrize(
    "order",
    [
        (*FAST, "-m", "seed=0,1"),
        pytest.param(("-m", *FAST, "seed=0,1"), marks=pytest.mark.slow),
        pytest.param((*FAST, "seed=0,1", "--multirun"), marks=pytest.mark.slow),
    ],
)
def test_a_sweep_works_in_any_order_of_arguments(run, tmp_path, order):
    code, out, _ = run(*order, "run_dir=sweep")
    assert code == 0
    lines = out.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["job 0 seed=0", "job 1 seed=1", "sweep"]
    assert lines[-2].startswith("± is the standard error of the mean over seeds")
    assert lines[-1] == "measured by: the objective's loss on 20 held-out samples, eval mode"
    for job in ("0", "1"):
        assert (tmp_path / "sweep" / job / "result.json").is_file()
    assert {p.name for p in tmp_path.iterdir()} == {"sweep"}


def test_a_failed_job_does_not_end_the_sweep(run, tmp_path):
    code, _, err = run("-m", *FAST, "run_dir=sweep", "objective.temperature=-1,0.2")
    assert code == 2
    assert "job 0 objective.temperature=-1: error: objective.temperature=-1" in err and "Traceback" not in err
    assert (tmp_path / "sweep" / "1" / "result.json").is_file()


def test_cfg_prints_the_config_and_starts_nothing(run, tmp_path):
    code, out, _ = run("--cfg", "job", "objective=joint")
    assert code == 0 and "_target_: sslcli.objectives.joint.Joint" in out
    assert list(tmp_path.iterdir()) == []


def test_own_parts_from_the_command_line(run, tmp_path):
    """A package and a folder of yaml beside it; nothing registered anywhere."""
    (tmp_path / "clipkg").mkdir()
    (tmp_path / "clipkg" / "__init__.py").write_text("")
    (tmp_path / "clipkg" / "mine.py").write_text(
        "from sslcli.objectives.infonce import InfoNCE\n\n\nclass Mine(InfoNCE):\n    pass\n"
    )
    (tmp_path / "my" / "objective").mkdir(parents=True)
    (tmp_path / "my" / "objective" / "mine.yaml").write_text("# mine\n_target_: clipkg.mine.Mine\ntemperature: 0.3\n")
    code, out, _ = run(*FAST, "objective=mine", "--config-dir", "my", "plugins=[clipkg]", "run_dir=r")
    assert code == 0 and "objective Mine" in out
    code, _, err = run(*FAST, "objective=mine", "--config-dir", "my", "run_dir=q")
    assert code == 2 and "plugins=[clipkg]" in err
    code, _, err = run("run=r", command="eval")
    assert code == 2 and "plugins=[clipkg]" in err
    code, _, _ = run("run=r", "plugins=[clipkg]", "probe=none", command="eval")
    assert code == 0


def test_a_folder_of_ones_own_pictures(run, tmp_path):
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for k in range(20):
            pixels = generator.integers(0, 255, (20 + k, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{k}.png")
    code, out, _ = run(
        "dataset=images", "dataset.path=pictures", "dataset.size=16", "train.batch_size=8", "train.steps=2",
        "dataset.workers=1", "device=cpu", "run_dir=r", *NO_PAGE,
    )  # fmt: skip
    assert code == 0 and "knn_top1" in out
    metrics = json.loads((tmp_path / "r" / "result.json").read_text())["metrics"]["knn_top1"]
    assert {"value", "std", "raw_input", "centred", "random_init", "protocol"} <= metrics.keys()
    assert "bank 32 train, queries 8 held out" in metrics["protocol"]


def evaluations(run_dir, step):
    """What ``eval.json`` holds of the run's own data, all of it measured at ``step``."""
    metrics = json.loads((run_dir / "eval.json").read_text())["metrics"]
    assert {metric["step"] for metric in metrics.values() if "value" in metric} == {step}
    measured = {name: metric for name, metric in metrics.items() if "value" in metric}
    return {name: {k: v for k, v in m.items() if k not in ("step", "weights")} for name, m in measured.items()}


def test_eval_gives_the_number_again(run, tmp_path):
    options = ("debug=tiny", "dataset.size=16", "dataset.num_samples=300", "device=cpu", "run_dir=r", *NO_PAGE)
    run(*options)
    trained = json.loads((tmp_path / "r" / "result.json").read_text())["metrics"]
    code, out, _ = run("run=r", command="eval")
    assert code == 0
    of_the_probe = {name: metric for name, metric in trained.items() if name.startswith("knn")}
    assert evaluations(tmp_path / "r", step=20) == of_the_probe
    assert trained.keys() - of_the_probe.keys() == {"rankme", "uniformity", "dimension_std", "alignment"}
    assert {"protocol", "split", "seed", "raw_input", "random_init"} <= trained["knn_top1"].keys()
    code, _, err = run(command="eval")
    assert code == 2 and "run is needed" in err
    code, _, err = run("run=nowhere", command="eval")
    assert code == 2 and "no run with a checkpoint in nowhere" in err


QUICK = ("probe.parts.knn.k=[5,1]", "probe.parts.linear.steps=20", "probe.parts.mi.steps=10",
         "probe.parts.mi.batch_size=20", "probe.parts.mi.hidden_dim=8", "probe.parts.finetune.epochs=1",
         "probe.parts.geometry.lidar_views=2")  # fmt: skip


@pytest.mark.slow
def test_all_probes_in_one_command_and_twice_the_same_bytes(run, tmp_path):
    run("debug=tiny", "dataset.size=16", "dataset.num_samples=300", "device=cpu", "run_dir=r", "probe=none", *NO_PAGE)
    code, out, err = run("run=r", "probe=all", *QUICK, command="eval")
    assert code == 0, err
    first = (tmp_path / "r" / "eval.json").read_bytes()
    metrics = json.loads(first)["metrics"]
    expected = {"knn_top1", "knn_top1_k1", "knn_whitened_top1", "linear_top1", "rankme", "lidar", "alignment",
                "uniformity", "mi_floor", "mi_ceiling", "finetune_top1"}  # fmt: skip
    assert expected <= metrics.keys()
    for name, metric in metrics.items():
        assert {"protocol", "split", "seed", "random_init", "step"} <= metric.keys(), name
        assert "raw_input" in metric or name.startswith("finetune_")  # whose raw input is what it learns from
    assert re.search(r"linear_top1: .*softmax\s+regression", out) and re.search(r"mi_floor +[-\d.]+ ± [\d.]+ nats", out)
    (tmp_path / "r" / "eval.json").unlink()
    assert run("run=r", "probe=all", *QUICK, command="eval")[0] == 0
    assert (tmp_path / "r" / "eval.json").read_bytes() == first


@pytest.mark.slow
def test_a_second_evaluation_leaves_the_first(run, tmp_path):
    run("debug=tiny", "dataset.size=16", "dataset.num_samples=300", "device=cpu", "run_dir=r", "probe=none", *NO_PAGE)
    assert run("run=r", command="eval")[0] == 0
    first = evaluations(tmp_path / "r", step=20)
    assert run("run=r", "probe=linear", "probe.steps=20", "seed=7", command="eval")[0] == 0
    both = evaluations(tmp_path / "r", step=20)
    assert {name: both[name] for name in first} == first and both["linear_top1"]["seed"] == 7
    (tmp_path / "r" / "eval.json").write_text("{")
    code, _, err = run("run=r", command="eval")
    assert code == 0 and "eval.json is damaged" in err and "It is eval.damaged-1.json now" in err
    assert (tmp_path / "r" / "eval.damaged-1.json").read_text() == "{"
    assert evaluations(tmp_path / "r", step=20) == first


@pytest.mark.slow
def test_another_dataset_is_evaluated_beside_the_runs_own(run, tmp_path):
    generator = np.random.default_rng(0)
    for k, label in enumerate(("dark", "light")):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(60):
            pixels = generator.integers(0, 100, (20, 24, 3), dtype=np.uint8) + np.uint8(100 * k)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{i}.png")
    run("debug=tiny", "dataset.size=16", "dataset.num_samples=300", "device=cpu", "run_dir=r", *NO_PAGE)
    own = ("run=r", "probe=linear", "probe.steps=50")
    assert run(*own, command="eval")[0] == 0
    other = ("dataset=images", "dataset.path=pictures", "dataset.workers=0")
    code, out, err = run(*own, *other, command="eval")
    assert code == 0, err
    found = json.loads((tmp_path / "r" / "eval.json").read_text())
    (name,) = found["datasets"]
    assert name.startswith("images-") and found["datasets"][name]["path"] == "pictures"
    there, here = found["metrics"][name]["linear_top1"], found["metrics"]["linear_top1"]
    assert "96 train labels, queries 24 held out" in there["protocol"] and there["value"] == 1.0
    assert "240 train labels, queries 60 held out" in here["protocol"]
    assert run("run=r", *other, command="eval")[0] == 0  # the size that it settles on is settled
    first = json.loads((tmp_path / "r" / "eval.json").read_text())["metrics"][name]
    assert run("run=r", *other, command="eval")[0] == 0
    assert json.loads((tmp_path / "r" / "eval.json").read_text())["metrics"][name] == first


def test_a_dataset_that_the_encoder_cannot_read_is_refused(run):
    run("debug=tiny", "dataset.size=16", "device=cpu", "run_dir=r", "probe=none", *NO_PAGE)
    code, _, err = run("run=r", "dataset=fashion_mnist_mini", command="eval")
    assert code == 2 and len(err.strip().splitlines()) == 1
    assert "the encoder reads 'image' as image of shape [3, 16, 16] and dtype uint8" in err
    assert "these data have image of shape [1, 28, 28] and dtype uint8" in err
    code, _, err = run("run=r", "dataset=images", "dataset.path=nowhere", command="eval")
    assert code == 2 and "dataset.path: there is no folder nowhere" in err


@pytest.mark.slow
def test_a_watched_run_keeps_its_best_checkpoint_which_can_be_evaluated(run, tmp_path):
    options = ("debug=tiny", "dataset.size=16", "dataset.num_samples=300", "device=cpu", "run_dir=r", *NO_PAGE,
               "train.steps=12", "probe.every=2", "probe.share=null", "checkpoint.keep_best=knn_top1",
               "checkpoint.keep=1", "checkpoint.every=3")  # fmt: skip
    code, out, err = run(*options)
    assert code == 0, err
    lines = [json.loads(text) for text in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    seen = {line["step"]: line["probe/online_knn_top1"] for line in lines if "probe/online_knn_top1" in line}
    assert sorted(seen) == [2, 4, 6, 8, 10, 12]
    best = min(step for step, value in seen.items() if value == max(seen.values()))
    assert (tmp_path / "r" / "checkpoints" / "best").read_text() == f"step-{best:08d}.pt\n"
    kept = {path.name for path in (tmp_path / "r" / "checkpoints").glob("*.pt")}
    assert kept == {f"step-{best:08d}.pt", "step-00000012.pt"}
    assert f"online_knn_top1 was highest at step {best}" in out
    assert run("run=r/checkpoints/best", "probe=geometry", command="eval")[0] == 0
    apart = json.loads((tmp_path / "r" / "eval.json").read_text())["metrics"][f"step-{best:08d}"]
    assert {metric["step"] for metric in apart.values()} == {best} and "rankme" in apart
    assert run(*options, "train.steps=14", "checkpoint.keep_best=null", "probe.every=null")[0] == 0
    assert (tmp_path / "r" / "checkpoints" / f"step-{best:08d}.pt").is_file()  # what `best` names stays


@pytest.mark.slow
def test_patience_ends_a_run_which_is_then_finished(run, tmp_path):
    options = ("debug=tiny", "dataset.size=16", "dataset.num_samples=300", "device=cpu", "run_dir=r", "probe=none",
               *NO_PAGE, "train.steps=400", "optimizer.lr=0", "probe.every=2", "probe.share=null", "probe.patience=3",
               "checkpoint.keep_best=rankme", "encoder.norm=layer", "log.every=100")  # fmt: skip
    code, out, err = run(*options)
    assert code == 0, err
    assert "stopped early at step 8: 3 evaluations without a higher rankme (probe.patience=3)" in out
    assert json.loads((tmp_path / "r" / "result.json").read_text())["steps"] == 8
    code, out, _ = run(*options)
    assert code == 0 and "is finished (8 steps)" in out
    code, out, _ = run(*options, "probe.patience=5")
    assert code == 0 and "resuming" in out and "stopped early at step 12: 5 evaluations" in out


def test_loading_and_exporting_need_no_data(run, tmp_path):
    import sslcli

    (tmp_path / "pictures" / "a").mkdir(parents=True)
    for k in range(12):
        pixels = np.random.default_rng(k).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / "a" / f"{k}.png")
    options = (
        "dataset=images",
        "dataset.path=pictures",
        "dataset.size=16",
        "train.batch_size=4",
        "run_dir=r",
        *NO_PAGE,
    )
    assert run(*options, "train.steps=2", "device=cpu", "dataset.workers=0")[0] == 0
    (tmp_path / "pictures" / "a" / "0.png").rename(tmp_path / "pictures" / "a" / "other.png")
    code, _, err = run(*options, "train.steps=3", "device=cpu", "dataset.workers=0")
    assert code == 2 and "dataset:" in err and "resume=never" in err
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    assert sslcli.load("r")(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)).shape[0] == 1
    assert run("run=r", command="export")[0] == 0


@pytest.mark.slow
def test_a_page_of_a_run_and_of_a_sweep(run, tmp_path):
    run(*FAST, "-m", "seed=0,1", "run_dir=sweep")
    code, out, _ = run("run=sweep", command="report")
    assert code == 0 and out.startswith("sweep: 2 jobs (2 ok)\n") and out.endswith("\npage  sweep/comparison.html\n")
    assert {"sweep.csv", "comparison.html"} <= {path.name for path in (tmp_path / "sweep").iterdir()}
    assert "seed=1" in (tmp_path / "sweep" / "comparison.html").read_text()
    code, out, _ = run("run=sweep/1", command="report")
    assert (code, out) == (0, "wrote sweep/1/report.html\n")
    code, out, _ = run("run=[sweep/1,sweep/0]", "output=page.html", command="report")
    assert code == 0 and (tmp_path / "page.html").is_file()
    code, _, err = run("run=nowhere", command="report")
    assert code == 2 and "neither a run nor a folder of runs in nowhere" in err
    code, _, err = run(command="report")
    assert code == 2 and "run is needed" in err


def test_one_sample_too_many_for_whole_chunks(run):
    assert run("debug=tiny", "dataset.num_samples=641", "encoder=mlp", "run_dir=r", "train.steps=2", *NO_PAGE)[0] == 0


def test_a_folder_of_somebody_elses_is_left_alone(run, tmp_path):
    (tmp_path / "r" / "export").mkdir(parents=True)
    (tmp_path / "r" / "config.yaml").write_text("mine: 1\n")
    code, _, err = run(*FAST, "run_dir=r")
    assert code == 2 and "config.yaml" in err
    assert (tmp_path / "r" / "config.yaml").read_text() == "mine: 1\n" and (tmp_path / "r" / "export").is_dir()


def test_load_gives_the_probes_features(run, tmp_path):
    import sslcli

    run(*FAST, "run_dir=r")
    encoder = sslcli.load(tmp_path / "r")
    assert not encoder.training
    x = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        features = encoder(x)
        assert features.shape == (3, encoder.dim)
        torch.testing.assert_close(encoder(x.float() / 255), features)
        assert encoder(torch.zeros(1, 3, 40, 50, dtype=torch.uint8)).shape == (1, encoder.dim)


def test_a_finished_run_says_so_without_its_data(run, tmp_path):
    (tmp_path / "pictures").mkdir()
    for k in range(40):
        Image.new("RGB", (16, 16), (6 * k, 0, 0)).save(tmp_path / "pictures" / f"{k}.png")
    command = ("dataset=images", "dataset.path=pictures", "dataset.size=16", "train.batch_size=8", "probe=none",
               "train.epochs=1", "log.report=false")  # fmt: skip
    code, out, err = run(*command)
    assert code == 0, err
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    code, out, err = run(*command)
    assert code == 0 and "is finished" in out, err
    code, _, err = run(*command, "train.epochs=2")  # which takes the data
    assert code == 2 and "dataset.path" in err


def test_another_rank_leaves_after_rank_0_has_said_what_is_wrong(run, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "23456"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sslcli.cli.LAST_WORD", 0.1)
    ignored = []  # signals: that with which srun ends it when rank 0 has left
    monkeypatch.setattr("sslcli.cli.signals.ignore", lambda: ignored.append(True))
    begin = time.monotonic()
    assert run("device.num=2") == (2, "", "") and ignored and time.monotonic() > begin + 0.1
