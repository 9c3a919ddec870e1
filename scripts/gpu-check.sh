#!/bin/sh
# All that needs a CUDA device: scripts/gpu-check.sh PYTHON [--tiny --device cpu]
# Kernels and the plain path against their twins, then figures of DiffusionGemma with random weights at
# its released size. Needs torch with CUDA, triton, transformers and pytest, and no network. With
# `--tiny --device cpu` it runs anywhere, to see that it does; those figures mean nothing.
# Ends with one JSON line; the exit code is 1 where something is wrong.
set -u
cd "$(dirname "$0")/.."
python=$1
shift
case " $* " in
*" --device cpu "*) gpu=no ;;
*)
    gpu=yes
    "$python" -c 'import torch; assert torch.cuda.is_available(), "gpu-check needs a CUDA device"' || exit 1
    ;;
esac
status=0
# The GPU tests alone, without this project's plugins: a bare GPU machine may lack what others import.
pytest() { "$python" -m pytest -q -o addopts= -p no:cacheprovider -ra "$@" || status=1; }
pytest -m gpu tests/engine/test_gpu.py
if [ $gpu = yes ]; then
    pytest --ignore tests/engine/kernels/test_compile.py tests/engine/kernels
    "$python" -m bench.kernels || status=1
fi
"$python" -m bench.step "$@" || status=1
exit $status
