"""Calls that never stop, from many callers; each failure and each wrong answer is kept."""

import asyncio
import collections
import random
import threading
import time

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as stubs

from fleet import PATIENCE

# A loop of so many turns: some milliseconds of a processor, so that a server that is told to stop
# has something in hand.
TURNS = 3000
# One call in so many is such a loop.
ONE_IN = 4


def quick(number):
    message = pb.ModelInferRequest(model_name="two_versions", id=str(number))
    message.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    message.raw_input_contents.append(np.float32(number).tobytes())
    return message


def slow(number):
    message = pb.ModelInferRequest(model_name="loop_busy", id=str(number))
    message.inputs.add(name="x", datatype="FP32", shape=[1, 1])
    message.raw_input_contents.append(np.float32(number).tobytes())
    message.inputs.add(name="iterations", datatype="INT64", shape=[])
    message.raw_input_contents.append(np.int64(TURNS).tobytes())
    return message


class Calls:
    """`callers` on `channels` connections of a front, in a thread of their own, each with a short
    pause between two calls."""

    def __init__(self, front, callers=16, channels=2, pause=0.02, seed=1):
        self.front = front
        self.callers, self.channels, self.pause = callers, channels, pause
        self.random = random.Random(seed)
        self.answered = collections.Counter()
        self.failures = []
        self.worst = 0.0
        self.stopping = False
        self.thread = threading.Thread(target=lambda: asyncio.run(self._all()))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "calls do not end"

    def check(self):
        """True while nothing has gone wrong."""
        assert not self.failures, self.failures[:5]
        return True

    def total(self):
        return sum(self.answered.values())

    async def _all(self):
        channels = [self.front.channel() for _ in range(self.channels)]
        each = [
            self._caller(stubs.GRPCInferenceServiceStub(channels[number % len(channels)]), number)
            for number in range(self.callers)
        ]
        await asyncio.gather(*each)
        for channel in channels:
            await channel.close()

    async def _caller(self, stub, number):
        while not self.stopping:
            await asyncio.sleep(self.random.expovariate(1 / self.pause))
            number = (number + self.callers) % 10_000
            is_slow = self.random.randrange(ONE_IN) == 0
            request = slow(number) if is_slow else quick(number)
            begun_at = time.monotonic()
            try:
                answer = await stub.ModelInfer(request, timeout=PATIENCE)
            except grpc.aio.AioRpcError as error:
                self.failures.append((error.code().name, error.details()))
                continue
            self.worst = max(self.worst, time.monotonic() - begun_at)
            value = np.frombuffer(answer.raw_output_contents[0], np.float32).item()
            # The version tells which release answered.
            release = int(answer.model_version)
            wanted = number + TURNS if is_slow else number * release
            if answer.id != request.id or value != wanted:
                self.failures.append(("WRONG", f"{answer.model_name}: {value} for {wanted}"))
            self.answered["slow" if is_slow else f"release {release}"] += 1
