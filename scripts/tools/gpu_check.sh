#!/usr/bin/env bash
# Checks that need a GPU: the tests marked gpu, then a benchmark of the parts of a step. It needs one CUDA GPU and no
# network, and takes less than 25 minutes.
#
# scripts/tools/gpu_check.sh [FILE.json]      # from the repository's root, with sslcli and pytest installed
set -u
cd "$(dirname "$0")/../.." || exit 2
json=${1:-gpu.json}
python - <<'PY' || exit 2
import sys

import torch

if not torch.cuda.is_available():
    sys.exit("There is no CUDA device on this machine.")
print(torch.cuda.get_device_name(), "torch", torch.__version__, "CUDA", torch.version.cuda)
PY
timeout 960 python -m pytest -m gpu -q
tests=$?
timeout 480 python scripts/benchmarks/bench_gpu.py --json "$json"
bench=$?
echo "tests ended with $tests, the benchmark with $bench (0: passed, 124: timed out); figures in $json"
((tests == 0 && bench == 0))
