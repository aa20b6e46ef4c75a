#!/usr/bin/env bash
# Runs every fault of a cluster ROUNDS times and writes a report: scripts/torture.sh ROUNDS REPORT
set -euo pipefail

rounds=$1
report=$2
cd "$(dirname "$0")/.."
mkdir -p "$(dirname "$report")"
report=$(cd "$(dirname "$report")" && pwd)/$(basename "$report")

# What is tested is what the report names.
cargo build --locked --workspace --bins
changed=""
if [ -n "$(git status --porcelain -- ':!docs')" ]; then
    changed=" with changes"
fi
# What each test appends comes after this. Its end says whether all of them passed.
cat >"$report" <<EOF
# Torture

$rounds rounds of each fault, three nodes on one machine with $(nproc) cores, commit
$(git rev-parse HEAD)$changed, $(date --utc --iso-8601=minutes). Made by \`make torture ROUNDS=$rounds\`; the
column of times is how long after a fault every topic had taken a write again.

EOF
export FLOTILLA_TEST_FAULT_ROUNDS=$rounds FLOTILLA_TEST_REPORT=$report
if command -v cargo-nextest >/dev/null; then
    tests=(cargo nextest run --locked --workspace --test cluster_faults --profile torture)
else
    tests=(cargo test --locked --workspace --test cluster_faults -- --test-threads 1)
fi
if "${tests[@]}"; then
    echo "All tests passed." >>"$report"
else
    echo "Not all tests passed." >>"$report"
    exit 1
fi
