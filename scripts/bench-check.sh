#!/usr/bin/env bash
# Compares the present build with another one: bench-check.sh PROGRAM COMMIT. The program is used if it is
# named; otherwise the commit is built, in a folder beside the present build's.
set -euo pipefail

cd "$(dirname "$0")/.."
old=$1
base=$2
target=${CARGO_TARGET_DIR:-$PWD/target}

if [ -z "$old" ]; then
    commit=$(git rev-parse --verify "$base^{commit}")
    sources=$target/bench/base-sources
    # A copy that an interrupted run has left is not to be trusted.
    rm -rf "$sources"
    mkdir -p "$sources"
    trap 'rm -rf "$sources"' EXIT
    # With the time of now: cargo takes files that are older than its last build for unchanged, and that
    # may have been of another commit.
    git archive "$commit" | tar -x -m -C "$sources"
    CARGO_TARGET_DIR=$target/bench/base cargo build --release --locked -p flotilla-daemon \
        --manifest-path "$sources/Cargo.toml"
    old=$target/bench/base/release/flotilla
fi
cargo build --release --locked -p flotilla-daemon
cargo build --release --locked -p flotilla-bench
"$target/release/flotilla-bench" check --old "$old" --new "$target/release/flotilla" \
    --directory "$target/bench/data"
