"""The calls with grpcio's asyncio API."""

import asyncio

import grpc
from inference_pb2_grpc import GRPCInferenceServiceStub

import models


class Stream:
    """One ModelStreamInfer call, written to and read from in turn."""

    def __init__(self, stub, timeout=None):
        self.listener, self.call = models.Listener(), stub.ModelStreamInfer(timeout=timeout)

    async def step(self, window):
        await self.call.write(self.listener.request(window))
        return self.listener.hear(await self.call.read())


def run(command, file, addr, folder):
    asyncio.run(start(command, file, addr, folder))


async def start(command, file, addr, folder):
    async with grpc.aio.insecure_channel(addr) as channel:
        await COMMANDS[command](GRPCInferenceServiceStub(channel), file, folder)


async def classify(stub, file, folder):
    answer = await stub.ModelInfer(models.magika_request(models.magika_row(file)), timeout=5)
    label, score = models.best_label(answer, folder)
    print(f"classify: {label} {score:.4f}")


async def speech(stub, file, _folder):
    stream = Stream(stub)
    models.print_speech([await stream.step(window) for window in models.read_wav(file)])
    await stream.call.done_writing()


async def deadline(stub, _file, _folder):
    stream = Stream(stub, timeout=0.3)
    await stream.step(models.SILENCE)
    try:
        await stream.call.read()
    except grpc.aio.AioRpcError as error:
        print(f"deadline: {error.code().name} after 1 answer")


async def cancel(stub, _file, _folder):
    stream = Stream(stub)
    for _ in range(3):
        await stream.step(models.SILENCE)
    stream.call.cancel()
    print(f"cancel: {(await stream.call.code()).name} after 3 answers")


async def error(stub, _file, _folder):
    try:
        await stub.ModelInfer(models.magika_request([1, 2, 3]), timeout=5)
    except grpc.aio.AioRpcError as refused:
        if refused.code() != grpc.StatusCode.INVALID_ARGUMENT:
            raise
        print(f"error: {refused.code().name}: {refused.details()}")


COMMANDS = {each.__name__: each for each in (classify, speech, deadline, cancel, error)}
