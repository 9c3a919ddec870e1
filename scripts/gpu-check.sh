#!/bin/sh
# All that needs a CUDA device: scripts/gpu-check.sh PYTHON [--tiny --device cpu]
# Kernels and the plain path against their twins, then figures of DiffusionGemma with random weights at
# its released size. Needs torch with CUDA, triton, transformers and pytest, and no network; pytest-xdist
# makes it quicker. With `--tiny --device cpu` it runs anywhere, to see that it does; those figures mean
# nothing, and its kernels are interpreted.
# What matters most comes first, and each stage's output goes to a file of its own in OUT (build/gpu-check)
# as it comes: after LIMIT seconds (470) what is left is not begun. Ends with one JSON line; the exit
# code is 1 where something is wrong.
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
out=${OUT:-build/gpu-check}
mkdir -p "$out"
rm -f "$out/step.json"
ended=$(mktemp)
trap 'rm -f "$ended"' EXIT
ends=$(($(date +%s) + ${LIMIT:-470}))
status=0
export PYTHONUNBUFFERED=1

stage() { # NAME SECONDS COMMAND...: at most so many of the seconds that are left
    name=$1 most=$2 left=$((ends - $(date +%s)))
    shift 2
    [ "$left" -lt "$most" ] && most=$left
    printf '\n## %s (%s s left)\n\n' "$name" "$left"
    if [ "$most" -lt 5 ]; then
        echo "not begun: no time is left"
        status=1
        return
    fi
    { timeout "$most" "$@" 2>&1; echo $? >"$ended"; } | tee "$out/$name.log"
    code=$(cat "$ended")
    [ "$code" = 124 ] && echo "$name: ended after $most s"
    [ "$code" = 0 ] || status=1
}

# The GPU tests alone, without this project's plugins: a bare GPU machine may lack what others import.
tests() { # NAME SECONDS ARGUMENT...
    name=$1 most=$2
    shift 2
    stage "$name" "$most" "$python" -m pytest -q -o addopts= -p no:cacheprovider -ra "$@"
}

parallel=
if [ $gpu = yes ]; then
    # Kernels are compiled by all cores before one process after the other would.
    stage compile 90 "$python" -m bench.compile_kernels --here
    parallel=$("$python" -c '
import os, importlib.util, torch
free = torch.cuda.mem_get_info()[0] // 10**10
print(f"-n {max(1, min(8, os.cpu_count(), free))}" if importlib.util.find_spec("xdist") else "")')
fi
# shellcheck disable=SC2086 # two words
tests engine 100 -m gpu $parallel tests/engine/test_gpu.py
if [ $gpu = yes ]; then
    # shellcheck disable=SC2086
    tests released 120 -m gpu $parallel tests/engine/kernels
fi
stage step 300 "$python" -m bench.step --out "$out/step.json" "$@"
if [ $gpu = yes ]; then
    stage kernels 90 "$python" -m bench.kernels
    # shellcheck disable=SC2086
    tests small 120 -m "not gpu" $parallel --ignore tests/engine/kernels/test_compile.py tests/engine/kernels
else
    stage kernels 300 env TRITON_INTERPRET=1 "$python" -m bench.kernels "$@"
fi
printf '\nexit code %s\n' $status
[ -f "$out/step.json" ] && cat "$out/step.json"
exit $status
