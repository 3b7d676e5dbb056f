"""Every objective learns something from the embedded data in a short run: the probe against its controls."""

import json
import subprocess
import sys

import pytest

STEPS = 300
# Points of 20-NN top-1 (2,000 images each way) by which the run must beat its own random initialisation and raw
# pixels. Seen when this was written, STEPS steps, seed 0: see docs/results.md. One point is about noise.
MARGINS = {
    "infonce": (), "moco": (), "moco objective.version=1": (), "moco objective.version=3": (),
    "infomax": (), "infomax objective.estimator=jsd": (), "infomax objective.estimator=nwj": (),
    "infomax objective.estimator=smile": (), "byol": (), "simsiam": (), "vicreg": (), "barlow_twins": (),
    "joint": (), "joint_masked": (),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("objective", MARGINS)
def test_it_learns(objective, tmp_path):
    command = [sys.executable, "-c", "from sslcli.cli import train; train()", *f"objective={objective}".split()]
    command += [f"train.steps={STEPS}", "probe.max_samples=2000", "run_dir=run", "log.every=100"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=600)
    found = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]["knn_top1"]
    assert found["value"] > found["random_init"] + 0.01
    assert found["value"] > found["raw_input"] + 0.01
