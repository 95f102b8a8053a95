#!/usr/bin/env python3
"""Servers come and go under load behind a front: no call may fail.

    tests/scale_out/trial.py [--front round_robin|nginx|envoy]... [--rounds 100] [--servers 3]

Flags that it does not know are for the servers.
"""

import argparse
import contextlib
import pathlib
import tempfile
import time

from calls import Calls
from fleet import Fleet, wait_until
from fronts import FRONTS

# Age of connections where they do not get old, in milliseconds.
SHORT_LIFE = 200


@contextlib.contextmanager
def running(front, folder, servers, spare=0, flags=()):
    """A fleet under load behind a front."""
    fleet = Fleet(folder, servers, spare, flags=(*FRONTS[front].flags, *flags))
    try:
        fleet.start()
        passing = FRONTS[front](folder, fleet.addresses())
        try:
            with Calls(passing) as calls:
                yield fleet, calls
        finally:
            passing.stop()
    finally:
        fleet.stop()


def restarts(front, folder, rounds, servers=3, flags=()):
    """One server after the other is stopped and started again."""
    with running(front, folder, servers, flags=flags) as (fleet, calls):
        for number in range(rounds):
            fleet.restart(number % servers, calls)
    calls.check()
    return calls


def rollout(front, folder, rounds, servers=2, flags=()):
    """Each server is replaced by one with a new release of the model."""
    with running(front, folder, servers, spare=1, flags=flags) as (fleet, calls):
        fleet.roll_out(calls)
        before = calls.answered.copy()
        end = calls.total() + 100
        wait_until(lambda: calls.check() and calls.total() >= end, "calls go on")
    calls.check()
    # Once the last old server is gone, all answers are the new ones.
    assert before["release 1"] and before["release 2"], before
    assert calls.answered["release 1"] == before["release 1"], calls.answered
    return calls


def ageing(front, folder, rounds, servers=2, flags=()):
    """Servers ask for new connections several times a second."""
    flags = ("--max-connection-age-ms", str(SHORT_LIFE), *flags)
    with running(front, folder, servers, flags=flags) as (fleet, calls):
        for _ in range(rounds):
            for server in fleet.servers:
                before = wait_until(lambda: peers(server), f"connections to {server.grpc}")
                renewed = lambda: calls.check() and not before & peers(server)
                wait_until(renewed, f"new connections to {server.grpc}")
    calls.check()
    return calls


def peers(server):
    """Ports of those who are connected to a server's data port."""
    port = int(server.grpc.rsplit(":", 1)[1])
    lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
    ends = [[int(end.split(":")[1], 16) for end in line.split()[1:3]] for line in lines]
    states = [line.split()[3] for line in lines]
    return {other for (own, other), state in zip(ends, states) if own == port and state == "01"}


TRIALS = {"restarts": restarts, "rollout": rollout, "ageing": ageing}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--front", action="append", choices=sorted(FRONTS))
    parser.add_argument("--trial", action="append", choices=sorted(TRIALS))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--servers", type=int, default=3)
    given, flags = parser.parse_known_args()
    failed = 0
    for front in given.front or FRONTS:
        for name in given.trial or TRIALS:
            begun_at = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    calls = TRIALS[name](front, folder, given.rounds, given.servers, flags)
                except AssertionError as error:
                    failed += 1
                    print(f"{front:12} {name:9} FAILED {error}", flush=True)
                    continue
            took = time.monotonic() - begun_at
            print(
                f"{front:12} {name:9} {calls.total():7} calls, none failed, in {took:4.0f} s; "
                f"slowest {calls.worst * 1000:.0f} ms",
                flush=True,
            )
    raise SystemExit(min(failed, 1))


if __name__ == "__main__":
    main()
