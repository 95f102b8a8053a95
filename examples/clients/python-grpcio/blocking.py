"""The calls with grpcio's blocking API."""

import queue

import grpc
from inference_pb2_grpc import GRPCInferenceServiceStub

import models


class Stream:
    """One ModelStreamInfer call: requests go in when they are ready, None ends them."""

    def __init__(self, stub, timeout=None):
        self.requests, self.listener = queue.Queue(maxsize=1), models.Listener()
        self.call = stub.ModelStreamInfer(iter(self.requests.get, None), timeout=timeout)

    def step(self, window):
        self.requests.put(self.listener.request(window))
        return self.listener.hear(next(self.call))


def run(command, file, addr, folder):
    with grpc.insecure_channel(addr) as channel:
        stub = GRPCInferenceServiceStub(channel)
        COMMANDS[command](stub, file, folder)


def classify(stub, file, folder):
    answer = stub.ModelInfer(models.magika_request(models.magika_row(file)), timeout=5)
    label, score = models.best_label(answer, folder)
    print(f"classify: {label} {score:.4f}")


def speech(stub, file, _folder):
    stream = Stream(stub)
    models.print_speech([stream.step(window) for window in models.read_wav(file)])
    stream.requests.put(None)


def deadline(stub, _file, _folder):
    stream = Stream(stub, timeout=0.3)
    stream.step(models.SILENCE)
    try:
        next(stream.call)
    except grpc.RpcError as error:
        print(f"deadline: {error.code().name} after 1 answer")
    stream.requests.put(None)


def cancel(stub, _file, _folder):
    stream = Stream(stub)
    for _ in range(3):
        stream.step(models.SILENCE)
    stream.call.cancel()
    print(f"cancel: {stream.call.code().name} after 3 answers")
    stream.requests.put(None)


def error(stub, _file, _folder):
    try:
        stub.ModelInfer(models.magika_request([1, 2, 3]), timeout=5)
    except grpc.RpcError as refused:
        if refused.code() != grpc.StatusCode.INVALID_ARGUMENT:
            raise
        print(f"error: {refused.code().name}: {refused.details()}")


COMMANDS = {each.__name__: each for each in (classify, speech, deadline, cancel, error)}
