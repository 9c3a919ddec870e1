#!/bin/sh
# Tests and figures that need a CUDA device, with the given Python: scripts/gpu-check.sh PYTHON
set -eu
cd "$(dirname "$0")/.."
python=$1
"$python" -c 'import torch; assert torch.cuda.is_available(), "gpu-check needs a CUDA device"'
"$python" -m pytest -m gpu -ra
"$python" -m bench.infill --device cuda --only reference
