#!/usr/bin/env bash
# Makes the Python environments that the end-to-end tests drive the server with: one per pinned
# release of the kubemq SDK, since all of them own the same module name.
#
# Safe to run again: an environment whose requirements have not changed is left alone, so a second
# run takes no time. The environments live in .local/venv-VERSION under the project root.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
installer=$root/.local/pip
versions="1.1.0 2.4.0 3.6.0 4.1.5"
python=${PYTHON:-python3}

# Makes one environment. Everything is pinned in the requirements file, so nothing is resolved:
# --no-deps also is the only way to install 1.1.0, whose own pins do not build on Python 3.11.
make_environment() {
    local version=$1
    local requirements=$root/tests/sdk/requirements-$version.txt
    local environment=$root/.local/venv-$version
    local stamp=$environment/stamp
    local wanted
    wanted=$(sha256sum <"$requirements")
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return 0
    fi
    rm -rf "$environment"
    "$python" -m venv --without-pip "$environment"
    # What is never imported need not be compiled.
    "$installer/bin/pip" --python "$environment/bin/python" install --quiet --disable-pip-version-check \
        --no-deps --no-compile --requirement "$requirements"
    "$environment/bin/python" -c 'import kubemq.grpc, grpc, pytest'
    # Written last: an environment that was interrupted is made anew.
    printf '%s\n' "$wanted" >"$stamp"
    echo "made $environment"
}

# The cluster tests give each server a network of its own with `ip`, and move its clock with a small
# library that is compiled on the spot.
install_system_packages() {
    local missing=()
    command -v ip >/dev/null || missing+=(iproute2)
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    if [ "${#missing[@]}" -eq 0 ]; then
        return 0
    fi
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "test-deps: the cluster tests need the packages ${missing[*]}" >&2
        return 1
    fi
    apt-get update --quiet
    apt-get install --quiet --yes --no-install-recommends "${missing[@]}"
}

mkdir -p "$root/.local"
# One run at a time: two that overlap would remove each other's work.
exec 9>"$root/.local/test-deps.lock"
flock 9
install_system_packages
[ -x "$installer/bin/pip" ] || "$python" -m venv --clear "$installer"

pids=()
for version in $versions; do
    make_environment "$version" &
    pids+=($!)
done
failed=0
for pid in "${pids[@]}"; do
    wait "$pid" || failed=1
done
if [ "$failed" -ne 0 ]; then
    echo "test-deps: an environment could not be made, see the messages above" >&2
    exit 1
fi
