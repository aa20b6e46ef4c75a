#!/usr/bin/env bash
# Keeps what is compiled of dependencies between runs of CI on one machine: scripts/dependency-cache.sh
# restore|save
#
# Only crates of the registry, which never change, for the very same compiler, lock file and profile: nothing
# of the project itself. One set is kept, of about 2 GB. Without one everything is compiled, as it is on a new
# machine.
set -euo pipefail

cd "$(dirname "$0")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/flotilla-ci
key=$(
    {
        rustc -vV
        cat Cargo.lock Cargo.toml
        printf "%s\n" "${RUSTFLAGS:-}"
    } | sha256sum | cut -d' ' -f1
)

case ${1:-} in
restore)
    if [ -d "$target/debug" ]; then
        echo "dependency-cache: $target is not new, nothing is restored"
    elif [ -d "$cache/$key" ]; then
        mkdir -p "$target"
        cp -a "$cache/$key" "$target/debug"
        echo "dependency-cache: dependencies are restored from $cache/$key"
    else
        echo "dependency-cache: no dependencies are kept for this compiler and lock file"
    fi
    ;;
save)
    [ -d "$cache/$key" ] && exit 0
    rm -rf "$cache"
    new=$cache/$key.new
    mkdir -p "$new"
    for part in .fingerprint build deps; do
        mkdir "$new/$part"
        # Whatever is of the project has its name, or is a test: a program, whose name has no dot.
        names=(! -name '*flotilla*')
        [ "$part" = deps ] && names+=(-name '*.*')
        # Times are kept: cargo compares them.
        (cd "$target/debug/$part" && find . -mindepth 1 -maxdepth 1 "${names[@]}" -print0 |
            xargs -0 cp -a --target-directory="$new/$part" --)
    done
    mv "$new" "$cache/$key"
    echo "dependency-cache: dependencies are kept in $cache/$key"
    ;;
*)
    echo "usage: scripts/dependency-cache.sh restore|save" >&2
    exit 2
    ;;
esac
