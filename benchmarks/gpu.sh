#!/usr/bin/env bash
# One command for a machine with an NVIDIA GPU, PyTorch and Triton; needs no network.
#
#   OUT=results bash benchmarks/gpu.sh
#
# Installs the tree without dependencies or build isolation into a folder of its own, runs the tests marked gpu (Triton
# against the C++ implementation of the same machine, bit for bit), then the benchmarks of the update, of the objective
# and of a network. Writes to OUT: gpu-tests.xml, step-gpu.json, dsm-gpu.json, network-gpu.json, step-cpu.json and the
# logs. Each part has a time limit; all together stay within 9 minutes. The exit status is that of the first part that
# failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${OUT:?set OUT to a folder for the results}"
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
status=0
part() {
    local name=$1 limit=$2
    shift 2
    echo "== $name"
    timeout "$limit" "$@" 2>&1 | tee "$OUT/$name.log"
    local code=${PIPESTATUS[0]}
    echo "== $name: exit $code"
    if [ "$status" -eq 0 ]; then status=$code; fi
}
part install 60 python3 -m pip install --quiet --no-deps --no-build-isolation --no-index --target "$site" .
# The installed tree first, so that what is tested is what was installed; benchmarks come from the checkout.
export PYTHONPATH="$site" PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1
part gpu-tests 180 python3 -m pytest -m gpu -q -W default -p no:cacheprovider --junitxml "$OUT/gpu-tests.xml" tests
export PYTHONPATH="$site:$PWD"
part step-gpu 100 python3 -m benchmarks.step --device cuda --dtypes float32 bfloat16 --budget 6 --json "$OUT/step-gpu.json"
part dsm-gpu 60 python3 -m benchmarks.dsm --device cuda --dtypes float32 bfloat16 --budget 6 --json "$OUT/dsm-gpu.json"
part network-gpu 110 python3 -m benchmarks.network --device cuda --networks ncsn --budget 4 --json "$OUT/network-gpu.json"
part step-cpu 30 python3 -m benchmarks.step --device cpu --threads 2 --sizes 8 16777216 --budget 6 --json "$OUT/step-cpu.json"
exit "$status"
