#!/bin/sh
# Tests and figures that need a CUDA device, with the given Python: scripts/gpu-check.sh PYTHON
set -eu
cd "$(dirname "$0")/.."
python=$1
"$python" -c 'import torch; assert torch.cuda.is_available(), "gpu-check needs a CUDA device"'
# The GPU tests alone, without this project's plugins: a bare GPU machine may lack what others import.
"$python" -m pytest -o addopts= -m gpu -ra tests/engine/test_gpu.py
"$python" -m pytest -o addopts= -ra --ignore tests/engine/kernels/test_compile.py tests/engine/kernels
"$python" -m bench.infill --device cuda --only reference
"$python" -m bench.kernels
