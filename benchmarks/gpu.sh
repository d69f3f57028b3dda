#!/usr/bin/env bash
# One command for a machine with an NVIDIA GPU, PyTorch and Triton; needs no network.
#
#   OUT=results bash benchmarks/gpu.sh
#
# Installs the tree without dependencies or build isolation into a folder of its own, tries the promises (selftest), runs
# the tests marked gpu (Triton against the C++ implementation of the same machine, bit for bit), looks for races and bad
# addresses in small launches where compute-sanitizer is installed, then runs the benchmark suite and makes its report.
# Writes to OUT: gpu-tests.xml, a JSON for each benchmark, report.md with its pictures, and the logs. Each part has a
# time limit and all together have 9 minutes, so that the last ones may be cut short or left out, which their logs say.
# The exit status is that of the first part that failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${OUT:?set OUT to a folder for the results}"
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
status=0
ends=520 # seconds; what is left is for the report
part() {
    local name=$1 limit=$2 left=$((ends - SECONDS))
    shift 2
    echo "== $name"
    if [ "$left" -lt 5 ]; then
        echo "== $name: left out, no time" | tee "$OUT/$name.log"
        if [ "$status" -eq 0 ]; then status=124; fi
        return
    fi
    if [ "$limit" -gt "$left" ]; then limit=$left; fi
    timeout "$limit" "$@" 2>&1 | tee "$OUT/$name.log"
    local code=${PIPESTATUS[0]}
    echo "== $name: exit $code"
    if [ "$status" -eq 0 ]; then status=$code; fi
}
part install 60 python3 -m pip install --quiet --no-deps --no-build-isolation --no-index --target "$site" .
# The installed tree first, so that what is tested is what was installed; benchmarks come from the checkout.
export PYTHONPATH="$site" PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1
part selftest 30 python3 -m fastlangevin selftest
part gpu-tests 150 python3 -m pytest -m gpu -q -W default -p no:cacheprovider --junitxml "$OUT/gpu-tests.xml" tests
if command -v compute-sanitizer >/dev/null; then
    part sanitizer 50 compute-sanitizer --error-exitcode 3 python3 -m fastlangevin selftest --device cuda
fi
export PYTHONPATH="$site:$PWD"
suite() {
    local limit=$1
    shift
    part "$1" "$limit" python3 -m benchmarks.suite "$1" --device cuda --out "$OUT" "${@:2}"
}
suite 60 step --dtypes float32 bfloat16 --budget 3
suite 30 dsm --budget 2
suite 30 perturb --budget 2
suite 40 chain --sizes 4096 1000000 --budget 3
suite 35 sampling --sizes 128 --budget 4
suite 35 graph_replay --budget 2
suite 40 network --budget 3
suite 25 sample_norms --budget 2
suite 30 normalisation --sizes 64 --budget 2
suite 35 training --sizes 128 --budget 3
suite 40 end_to_end --sizes 1 --budget 4
part step-cpu 30 python3 -m benchmarks.step --threads 2 --sizes 8 16777216 --budget 4 --json "$OUT/step-cpu.json"
ends=540
part report 15 python3 -m benchmarks.report "$OUT"
exit "$status"
