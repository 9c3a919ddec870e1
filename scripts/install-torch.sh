#!/bin/sh
# Installs torch into the environment of PYTHON: scripts/install-torch.sh PYTHON cpu|cuda
#
# A CPU-only machine must not fetch gigabytes of CUDA packages, which is what plain pip does on
# Linux. So: a CPU wheel from wherever pip is configured to look, else uv's choice of the CPU
# build. Outside Linux the ordinary build is the CPU (or Metal) one.
set -eu
python=$1
backend=$2
version=$(sed -n 's/^torch==//p' "$(dirname "$0")/../constraints.txt")

if "$python" -c 'import torch' 2>/dev/null; then
    exit 0
fi
case $backend in
cuda)
    "$python" -m pip install -q "torch==$version"
    ;;
cpu)
    if [ "$(uname -s)" != Linux ]; then
        "$python" -m pip install -q "torch==$version"
    elif ! "$python" -m pip install -q "torch==$version+cpu" 2>/dev/null; then
        "$python" -m pip install -q uv
        "$python" -m uv pip install -q --python "$python" --torch-backend=cpu "torch==$version"
    fi
    ;;
*)
    echo "install-torch: TORCH must be cpu or cuda, got '$backend'" >&2
    exit 2
    ;;
esac
