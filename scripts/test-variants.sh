#!/usr/bin/env bash
# Builds the server once more, with features that only tests use, into variant/ of the profile's folder,
# beside the normal server, which stays as it is.
#
# One build has all of these features. Its dependencies are those of the normal build, which is why the
# whole workspace is named: cargo then chooses the same features for them.
set -euo pipefail

features=flotilla-daemon/mutations,flotilla-daemon/previous-feature-level

cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
# Cargo puts every build of a program in the same place: copied, and then the normal one put back, in one
# build with all tests, so that no processor waits while crates need each other.
cargo build --locked --workspace --bins --features "$features"
mkdir -p "$target/debug/variant"
cp --reflink=auto "$target/debug/flotilla" "$target/debug/variant/flotilla.new"
mv "$target/debug/variant/flotilla.new" "$target/debug/variant/flotilla"
cargo build --locked --workspace --bins --tests --examples
