"""SIGTERM: no longer ready, everything accepted is answered, success."""

import queue
import threading
import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2_grpc

import harness
import messages

REQUESTS = 30


def busy(iterations, **fields):
    x = np.full((1, 1), 5, np.float32)
    inputs = [("x", x), ("iterations", np.array(iterations, np.int64))]
    return messages.request("loop_busy", inputs, **fields)


@pytest.fixture
def slow(tmp_path):
    """A server where requests take long, one after the other."""
    harness.copy_models(tmp_path, "loop_busy")
    server = harness.Server(tmp_path, "--strict", "--batching", "off")
    yield server
    server.kill()


@pytest.fixture
def slow_stub(slow):
    with grpc.insecure_channel(slow.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def iterations_for(stub, seconds):
    """How many turns of the loop take about that long."""
    count = 1000
    while True:
        began = time.monotonic()
        stub.ModelInfer(busy(count), timeout=harness.PATIENCE)
        took = time.monotonic() - began
        if took > 0.02:
            return int(count * seconds / took)
        count *= 4


def in_flight(server):
    names = ("onnxd_running", "onnxd_queue_jobs")
    return sum(server.metric(name, model="loop_busy") for name in names)


def watch(server, events):
    """Puts health's states into `events` as they come, then what ended the watch."""

    def follow():
        with grpc.insecure_channel(server.grpc) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="")
            try:
                for answer in health.Watch(request, timeout=harness.PATIENCE):
                    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
                    events.put((name, time.monotonic()))
                events.put(("END", time.monotonic()))
            except grpc.RpcError as error:
                events.put((error.code().name, time.monotonic()))

    thread = threading.Thread(target=follow)
    thread.start()
    return thread


def test_requests_in_flight_are_answered(slow, slow_stub):
    count = iterations_for(slow_stub, 0.05)
    events = queue.Queue()
    watcher = watch(slow, events)
    assert events.get(timeout=harness.PATIENCE)[0] == "SERVING"

    finished = []
    calls = []
    for number in range(REQUESTS):
        request = busy(count, id=str(number))
        call = slow_stub.ModelInfer.future(request, timeout=harness.PATIENCE)
        call.add_done_callback(lambda _: finished.append(time.monotonic()))
        calls.append(call)
    # All are accepted: each runs, waits or is answered already.
    harness.wait_until(lambda: in_flight(slow) + len(finished) >= REQUESTS, "all are accepted")
    assert len(finished) < REQUESTS / 2, "there is something left to drain"
    slow.terminate()
    answers = [call.result(timeout=harness.PATIENCE) for call in calls]
    code = slow.wait()

    assert code == 0, slow.log
    assert [answer.id for answer in answers] == [str(number) for number in range(REQUESTS)]
    assert {messages.array(answer).item() for answer in answers} == {5.0 + count}
    name, when = events.get(timeout=harness.PATIENCE)
    assert name == "NOT_SERVING"
    assert when < sorted(finished)[-1], "health was told while requests were answered"
    watcher.join(harness.PATIENCE)


def test_a_stream_gets_what_was_read_and_then_unavailable(slow, slow_stub):
    # Long enough that what was read is still there when it is looked for.
    count = iterations_for(slow_stub, 0.5)
    more = queue.Queue()
    for number in range(5):
        more.put(busy(count, id=str(number)))
    answers = slow_stub.ModelStreamInfer(iter(more.get, None), timeout=harness.PATIENCE)
    ids = [next(answers).infer_response.id]
    harness.wait_until(lambda: 1 <= in_flight(slow) <= 4, "the others were read")
    slow.terminate()
    with pytest.raises(grpc.RpcError) as caught:
        ids += [answer.infer_response.id for answer in answers]
    more.put(None)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE, caught.value
    assert ids == ["0"]
    assert slow.wait() == 0, slow.log


def test_open_connections_hold_nothing_up(slow, slow_stub):
    # Idle connections and an idle stream, whose callers never say goodbye.
    idle = queue.Queue()
    stream = slow_stub.ModelStreamInfer(iter(idle.get, None), timeout=harness.PATIENCE)
    idle.put(busy(1))
    assert not next(stream).error_message
    with grpc.insecure_channel(slow.grpc) as other:
        grpc.channel_ready_future(other).result(harness.PATIENCE)
        began = time.monotonic()
        slow.terminate()
        assert slow.wait() == 0, slow.log
        assert time.monotonic() - began < 5
    idle.put(None)


def test_a_second_server_cannot_take_the_port(slow, tmp_path):
    done = harness.onnxd(
        *("serve", tmp_path, "--grpc-addr", slow.grpc),
        *("--http-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"),
    )
    assert done.returncode == 3, done.stderr
    assert slow.grpc in done.stderr
