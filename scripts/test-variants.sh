#!/usr/bin/env bash
# Builds the programs that only tests use, into variant/ of the profile's folder, in one build: the server with
# the feature `mutations`, and the simulator with what it runs optimised. Hundreds of clusters a test run are
# worth it there, while everywhere else the time would go to the compiler.
#
# Cargo puts every build of a program in the same place: these are copied, and then the normal ones put back,
# in one build with whatever else the arguments name (--tests), so that no processor waits while crates need
# each other. The whole workspace is named each time: cargo then chooses the same features for all
# dependencies, and compiles them once.
set -euo pipefail

cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
optimised=()
for package in model storage cluster simulation; do
    optimised+=(--config "profile.dev.package.flotilla-$package.opt-level=1")
done
cargo build --locked --workspace --bins --features flotilla-daemon/mutations "${optimised[@]}"
mkdir -p "$target/debug/variant"
for program in flotilla flotilla-simulation; do
    cp --reflink=auto "$target/debug/$program" "$target/debug/variant/$program.new"
    mv "$target/debug/variant/$program.new" "$target/debug/variant/$program"
done
cargo build --locked --workspace --bins "$@"
