#!/usr/bin/env python3
"""What several servers answer together, a processor each, over what one does.

    tests/scale_out/throughput.py [--front round_robin|nginx|envoy]... [--rounds 5] [--seconds 4]

The model is magika: a call costs a server milliseconds, and callers and proxies, which share the last
processor with a server, a fraction of one. From 1, numbers of servers double up to the machine's
processors, and they take turns within a round.
"""

import argparse
import asyncio
import os
import pathlib
import statistics
import tempfile
import time

import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as stubs

from fleet import PATIENCE, ROOT, Server
from fronts import FRONTS

PROCESSORS = sorted(os.sched_getaffinity(0))
# Callers for each server: one call runs, the others wait for it.
CALLERS = 4


def repository(folder):
    """magika alone, so that a server is ready at once."""
    models = folder / "models"
    models.mkdir()
    (models / "magika").symlink_to(ROOT / "models" / "magika")
    return models


def question():
    message = pb.ModelInferRequest(model_name="magika")
    message.inputs.add(name="bytes", datatype="INT32", shape=[1, 2048])
    message.raw_input_contents.append(np.full(2048, 256, np.int32).tobytes())
    return message


async def answers(front, callers, seconds):
    """Answers a second to callers that ask again as soon as they are answered."""
    channel = front.channel()
    stub, message = stubs.GRPCInferenceServiceStub(channel), question()

    async def caller(end):
        count = 0
        while time.monotonic() < end:
            await stub.ModelInfer(message, timeout=PATIENCE)
            count += 1
        return count

    async def all_for(seconds):
        begun_at = time.monotonic()
        counts = await asyncio.gather(*(caller(begun_at + seconds) for _ in range(callers)))
        return sum(counts) / (time.monotonic() - begun_at)

    await all_for(seconds / 4)
    rate = await all_for(seconds)
    await channel.close()
    return rate


def measured(name, folder, count, seconds):
    front = FRONTS[name]
    flags = ("--instances", "1", *front.flags)
    models = repository(folder)
    servers = [Server(folder / f"log-{n}", flags, PROCESSORS[n]) for n in range(count)]
    try:
        for server in servers:
            server.start(models)
        passing = front(folder, [server.grpc for server in servers])
        try:
            return asyncio.run(answers(passing, CALLERS * count, seconds))
        finally:
            passing.stop()
    finally:
        for server in servers:
            server.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--front", action="append", choices=sorted(FRONTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    given = parser.parse_args()
    counts = [1 << n for n in range(len(PROCESSORS).bit_length())]
    for name in given.front or FRONTS:
        rates = {count: [] for count in counts}
        for _ in range(given.rounds):
            for count in counts:
                with tempfile.TemporaryDirectory() as folder:
                    rates[count].append(measured(name, pathlib.Path(folder), count, given.seconds))
        for count in counts:
            ratios = sorted(many / one for many, one in zip(rates[count], rates[1]))
            print(
                f"{name:12} {count:3} server(s) {statistics.median(rates[count]):7.1f} "
                f"answers/s, {statistics.median(ratios):.2f} times one "
                f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
