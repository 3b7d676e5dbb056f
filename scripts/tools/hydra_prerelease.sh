#!/bin/sh
# Tries Hydra's next version before it is released: composes a config, runs a grid of two and a search of two there.
# It makes an environment of its own, which has what this one has, and installs only Hydra anew.
#   scripts/tools/hydra_prerelease.sh ['hydra-core>=1.4.0.dev1']
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python -m venv --system-site-packages "$place/venv"
# The packages of the environment that runs this script, behind those of the new one.
python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$place/inherited"
site=$("$place/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp "$place/inherited" "$site/inherited.pth"
"$place/venv/bin/pip" install --quiet --pre --upgrade "${1:-hydra-core>=1.4.0.dev1}"
cd "$place"
export PYTHONPATH="$here"
train() { "$place/venv/bin/python" -m sslcli train "$@"; }
"$place/venv/bin/python" -c 'import hydra; print("hydra", hydra.__version__)'
train --cfg job > config.yaml
train -m run_dir=grid dataset=synthetic debug=tiny train.steps=4 seed=0,1
train -m run_dir=search dataset=synthetic debug=tiny train.steps=4 hydra/sweeper=optuna hydra.sweeper.n_trials=2 \
  'optimizer.lr=tag(log, interval(1e-4, 1e-2))'
echo "Hydra's next version composes, sweeps and searches."
