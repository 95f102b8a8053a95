#!/usr/bin/env python3
"""Mixed load for a while: do memory, descriptors or threads grow?

    make soak                     (ARGS="--minutes 3")
    make soak-control             a server that leaks on purpose: the same check must find it out

Good requests of several models and shapes, cancelled, hurried and poisoned ones, clients that crash and
models that are swapped. Memory is read every second; its slope over the last two thirds (least squares)
and the counts at both ends of them decide. Writes the points to bench-out/soak.json.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time

import process
from chaos import Chaos
from load import Load
from server import BINARY, ROOT, Server

# What memory may grow, in KiB a minute. A run of less than some minutes cannot tell so little.
MOST_GROWTH = 512
# Pauses between two events, in seconds.
PAUSES = (2.0, 6.0)


async def events(chaos, end):
    kinds = (chaos.swap_model, chaos.crash_client, chaos.swap_certificate)
    while time.monotonic() < end:
        await asyncio.sleep(chaos.random.uniform(*PAUSES))
        event = chaos.random.choice(kinds)
        chaos.happened(event.__name__)
        await event()


async def watch(server, seconds):
    """Time, memory in KiB, threads, descriptors, once a second."""
    points, begun_at = [], time.monotonic()
    while (passed := time.monotonic() - begun_at) < seconds:
        pid = server.pid
        points.append(
            (passed, process.resident_kib(pid), process.threads(pid), process.descriptors(pid))
        )
        if len(points) % 15 == 1:
            print(f"{seconds - passed:5.0f} s left, {points[-1][1]} KiB", file=sys.stderr, flush=True)
        await asyncio.sleep(1)
    return points


def spark(values):
    """Values as letters of different height, for a terminal."""
    low, high = min(values), max(values)
    marks = "▁▂▃▄▅▆▇█"
    step = max(1, len(values) // 60)
    return "".join(marks[int(7 * (each - low) / max(1, high - low))] for each in values[::step])


def counted(server, ledger):
    """Models of which the server counts fewer answers than came. The counts of a version that was
    swapped go with it, so those of that model are left out."""
    found = process.samples(server.addresses["admin"])
    wrong = []
    for model, came in ledger.answered.items():
        told = process.total(found, "onnxd_requests_total", model=model, outcome="ok")
        if model != "swap" and told < came:
            wrong.append(f"{model}: {came} answers came, the server counts {told:.0f}")
    return wrong


async def main(options):
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        server.start()
        load = Load(server.connect, options.seed, options.callers, options.rate)
        await load.start()
        chaos = Chaos(server, load, options.seed)
        seconds = options.minutes * 60
        others = asyncio.create_task(events(chaos, time.monotonic() + seconds))
        points = await watch(server, seconds)
        await others
        await load.stop()
        await chaos.end()
        chaos.faults += counted(server, load.ledger)
        code = server.terminate()
        if code != 0:
            chaos.faults.append(f"exit code {code}")
        return judge(options, points, chaos, load.ledger.sent)


def judge(options, points, chaos, sent):
    steady = points[len(points) // 3 :]
    growth = 60 * process.slope([(at, memory) for at, memory, _, _ in steady])
    grows = growth > options.most_growth
    if grows:
        most = f"at most {options.most_growth}"
        chaos.faults.append(f"memory grows by {growth:.0f} KiB a minute, {most}")
    half = len(steady) // 2
    for what, column in (("threads", 2), ("descriptors", 3)):
        before, after = (max(p[column] for p in part) for part in (steady[:half], steady[half:]))
        if after > before + 4:
            chaos.faults.append(f"{what}: at most {before} first, {after} later")
    print(f"soak with seed {options.seed}: {points[-1][0]:.0f} s, {sent} requests")
    print("events      " + ", ".join(f"{what} {count}" for what, count in sorted(chaos.events.items())))
    memory = [each[1] for each in points]
    print(f"memory      {memory[0]} to {memory[-1]} KiB, {growth:+.0f} KiB a minute  {spark(memory)}")
    for what, column in (("threads", 2), ("descriptors", 3)):
        counts = [each[column] for each in points]
        print(f"{what:11} {min(counts)} to {max(counts)}  {spark(counts)}")
    for fault in chaos.faults[:20]:
        print(f"FAULT       {fault}")
    out = ROOT / "bench-out" / "soak.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"seed": options.seed, "growth_kib_a_minute": growth,
                               "faults": chaos.faults, "points": points}, indent=1))
    if options.expect_growth:
        print("the planted leak was found" if grows else "FAILED: the planted leak was not found")
        return 0 if grows else 1
    print("FAILED" if chaos.faults else "nothing grows, nothing lost, nothing wrong")
    return 1 if chaos.faults else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--rate", type=float, default=150.0, help="requests a second")
    parser.add_argument(
        "--most-growth", type=int, default=MOST_GROWTH, help="of memory, in KiB a minute"
    )
    parser.add_argument(
        "--expect-growth", action="store_true", help="the server leaks: that must be found"
    )
    chosen = parser.parse_args()
    print(f"{BINARY}, seed {chosen.seed}", file=sys.stderr)
    sys.exit(asyncio.run(main(chosen)))
