#!/usr/bin/env python3
"""Prints the environment that the tests are to have on this machine: nothing, or less of what they repeat.

Most long tests repeat one thing, with other moments of other faults each time: 30 crashes, two of each fault
of a cluster, 100 simulated clusters. On a machine whose processors are slower than usual all of that would take
too long, several times slower: hours. So fewer of them are made there. What each one demands stays, but for the
few times of a second or so that are promised of usual machines: those are as many times longer. On the slowest
machines fewer tests run at a time and some long tests of clusters are left out: nextest counts them as skipped.
Variables that are set already are left alone.
"""

import os
import statistics
import sys
import time

# What it takes on a usual processor.
USUAL_SECONDS = 0.065
# A few seconds of it.
SAMPLES = 25
SLOWNESS_MAX = 8
# From how many times the usual on, what is set; each adds to those before it.
STEPS = [
    (1.3, {"FLOTILLA_TEST_FAULT_ROUNDS": "1", "FLOTILLA_TEST_SEEDS": "30"}),
    (2.0, {"FLOTILLA_TEST_ROUNDS": "10", "FLOTILLA_TEST_SEEDS": "10"}),
    # See .config/nextest.toml.
    (3.0, {"NEXTEST_PROFILE": "slow", "NEXTEST_TEST_THREADS": "4"}),
]
# What is promised of a usual machine is held to as much longer, within reason.
LONGER_FROM = 2.0


def work_seconds() -> float:
    """The time on a processor of a fixed amount of work, whatever else runs beside it."""
    began = time.process_time()
    total = 0
    for number in range(1_000_000):
        total = (total * 3 + number) & 0xFFFFFF
    return time.process_time() - began


def main() -> None:
    # Processors that others share are fast and slow in turn, within seconds.
    slowness = statistics.median(work_seconds() for _ in range(SAMPLES)) / USUAL_SECONDS
    fewer = {}
    for slow_from, changes in STEPS:
        if slowness >= slow_from:
            fewer |= changes
    if slowness >= LONGER_FROM:
        fewer["FLOTILLA_TEST_SLOWNESS"] = str(min(round(slowness), SLOWNESS_MAX))
    fewer = {name: value for name, value in fewer.items() if name not in os.environ}
    if not fewer:
        return
    text = " ".join(f"{name}={value}" for name, value in fewer.items())
    print(f"this machine is {slowness:.1f} times slower than usual: {text}", file=sys.stderr)
    print(text)


main()
