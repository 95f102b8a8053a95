"""Callers of all kinds, whose every request ends in a ledger.

A request is one of those a server meets in a day: good ones of several shapes and sizes, ones that
are cancelled or come with no time, ones whose values fail the run. The right answer of each is known
beforehand, so a wrong one is found.
"""

import asyncio
import collections
import random
import time

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as stubs
from tritonclient.utils import np_to_triton_dtype

MODELS = ("add_i64", "gather_100", "identity_f32", "int_divide", "swap", "two_inputs")
# Shares of what callers do; the rest is good and waits for its answer.
CANCELS, EXPIRES, POISONS = 0.05, 0.05, 0.02
# Time of a request that is not in a hurry, in seconds.
PATIENCE = 20.0
MESSAGES = 8


def message(model, named):
    found = pb.ModelInferRequest(model_name=model)
    for name, array in named.items():
        datatype = np_to_triton_dtype(array.dtype)
        found.inputs.add(name=name, datatype=datatype, shape=array.shape)
        found.raw_input_contents.append(array.tobytes())
    return found


class Requests:
    """Makes requests with their right answers."""

    def __init__(self, seed):
        self.numbers = np.random.default_rng(seed)
        self.table = None

    async def learn(self, stub):
        """Row by row, what the table model answers: nothing else is in those batches."""
        rows = []
        for index in range(100):
            answer = await stub.ModelInfer(
                message("gather_100", {"indices": np.array([[index]], np.int64)}), timeout=PATIENCE
            )
            rows.append(np.frombuffer(answer.raw_output_contents[0], np.float32))
        self.table = np.stack(rows)

    def good(self, model):
        rows, width = int(self.numbers.integers(1, 9)), int(self.numbers.choice([1, 4, 16]))
        whole = lambda shape: self.numbers.integers(-(2**31), 2**31, shape)
        real = lambda shape: self.numbers.normal(size=shape).astype(np.float32)
        if model == "add_i64":
            a, b = whole((rows, width)), whole((rows, width))
            return message(model, {"a": a, "b": b}), [a + b]
        if model == "gather_100":
            indices = self.numbers.integers(0, 100, (rows, 1))
            return message(model, {"indices": indices}), [self.table[indices[:, 0]]]
        if model == "int_divide":
            a = self.numbers.integers(0, 1000, (rows, 1)).astype(np.int32)
            b = self.numbers.integers(1, 10, (rows, 1)).astype(np.int32)
            return message(model, {"a": a, "b": b}), [a // b]
        if model == "two_inputs":
            a, b = real((rows, 4)), real((rows, 4))
            return message(model, {"a": a, "b": b}), [a + b, a - b]
        x = real((rows, width))
        return message(model, {"x": x}), [x]

    def poisoned(self):
        if self.numbers.random() < 0.5:
            return message("gather_100", {"indices": np.array([[1000]], np.int64)})
        values = {"a": np.array([[1]], np.int32), "b": np.array([[0]], np.int32)}
        return message("int_divide", values)


def is_right(answer, wanted):
    if len(answer.raw_output_contents) != len(wanted):
        return False
    for output, raw, right in zip(answer.outputs, answer.raw_output_contents, wanted):
        right = np.ascontiguousarray(right)
        if list(output.shape) != list(right.shape) or raw != right.tobytes():
            return False
    return True


class Ledger:
    """How every request ended: exactly one line each."""

    def __init__(self):
        self.lines = []
        self.sent = 0
        self.answered = collections.Counter()
        self.wrong = []

    def write(self, kind, begun_at, code, text=""):
        self.lines.append((kind, begun_at, time.monotonic(), code, text))

    def codes(self, since=0.0):
        found = collections.Counter()
        for kind, begun_at, _, code, _ in self.lines:
            if begun_at >= since:
                found[kind, code] += 1
        return found

    def ended(self):
        return len(self.lines)


class Load:
    """Callers on channels of their own until `stop` is called."""

    def __init__(self, connect, seed, callers, rate, streams=2, models=MODELS):
        self.connect = connect
        self.random = random.Random(seed)
        self.requests = Requests(seed)
        self.ledger = Ledger()
        self.models = models
        self.pause = callers / rate
        self.callers, self.streams = callers, streams
        self.stopping = False
        self.tasks = []

    async def start(self):
        async with self.connect() as channel:
            await self.requests.learn(stubs.GRPCInferenceServiceStub(channel))
        self.tasks = [asyncio.create_task(self._calls()) for _ in range(self.callers)]
        self.tasks += [asyncio.create_task(self._streams()) for _ in range(self.streams)]

    async def stop(self):
        self.stopping = True
        await asyncio.gather(*self.tasks)

    async def _pause(self):
        await asyncio.sleep(self.random.expovariate(1 / self.pause))

    async def _calls(self):
        while not self.stopping:
            # A new connection now and then, as clients come and go.
            async with self.connect() as channel:
                stub = stubs.GRPCInferenceServiceStub(channel)
                for _ in range(200):
                    if self.stopping:
                        return
                    await self._pause()
                    await self._call(stub)

    async def _call(self, stub):
        chance, begun_at = self.random.random(), time.monotonic()
        request, wanted = self.requests.good(self.random.choice(self.models))
        kind, timeout = "good", PATIENCE
        if chance < CANCELS:
            kind = "cancelled"
        elif chance < CANCELS + EXPIRES:
            kind, timeout = "hurried", self.random.uniform(0.0005, 0.01)
        elif chance < CANCELS + EXPIRES + POISONS:
            kind, request, wanted = "poisoned", self.requests.poisoned(), None
        self.ledger.sent += 1
        call = stub.ModelInfer(request, timeout=timeout)
        try:
            if kind == "cancelled":
                await asyncio.wait([asyncio.ensure_future(call.code())], timeout=0.002)
                call.cancel()
            answer = await call
        except asyncio.CancelledError:
            self.ledger.write(kind, begun_at, "CANCELLED")
            return
        except grpc.aio.AioRpcError as error:
            self.ledger.write(kind, begun_at, error.code().name, error.details())
            return
        self._answered(kind, begun_at, answer, wanted, request)

    def _answered(self, kind, begun_at, answer, wanted, request):
        self.ledger.answered[request.model_name] += 1
        if wanted is not None and not is_right(answer, wanted):
            self.ledger.wrong.append(f"{request.model_name}: {answer.outputs}"[:300])
        self.ledger.write(kind, begun_at, "OK")

    async def _streams(self):
        while not self.stopping:
            async with self.connect() as channel:
                await self._pause()
                await self._stream(stubs.GRPCInferenceServiceStub(channel))

    async def _stream(self, stub):
        """Some messages, answered in their order; what is not answered shares the stream's end."""
        requests = [self.requests.good("add_i64") for _ in range(MESSAGES)]
        begun_at, answered = time.monotonic(), 0
        self.ledger.sent += len(requests)
        call = stub.ModelStreamInfer(iter([each for each, _ in requests]), timeout=PATIENCE)
        code, text = "OK", ""
        try:
            async for answer in call:
                request, wanted = requests[answered]
                answered += 1
                if answer.error_message:
                    self.ledger.write("streamed", begun_at, "ERROR", answer.error_message)
                else:
                    self._answered(
                        "streamed", begun_at, answer.infer_response, wanted, request
                    )
        except grpc.aio.AioRpcError as error:
            code, text = error.code().name, error.details()
        if answered < len(requests) and code == "OK":
            code, text = "MISSING", f"{answered} of {len(requests)} answered"
        for _ in requests[answered:]:
            self.ledger.write("streamed", begun_at, code, text)
