#!/usr/bin/env bash
# Builds the simulator with what it runs optimised, into variant/ of the profile's folder: hundreds of
# clusters a test run are worth it there, while everywhere else the time would go to the compiler.
#
# The whole workspace is named so that the dependencies are those of every other build.
set -euo pipefail

cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
optimised=()
for package in model storage cluster simulation; do
    optimised+=(--config "profile.dev.package.flotilla-$package.opt-level=1")
done
cargo build --locked --workspace --bin flotilla-simulation "${optimised[@]}"
mkdir -p "$target/debug/variant"
cp --reflink=auto "$target/debug/flotilla-simulation" "$target/debug/variant/flotilla-simulation.new"
mv "$target/debug/variant/flotilla-simulation.new" "$target/debug/variant/flotilla-simulation"
