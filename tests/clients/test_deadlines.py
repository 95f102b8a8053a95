"""Calls that are late end, and what they held is free again."""

import statistics
import time

import grpc
import numpy as np
import pytest

import harness
import messages

FOREVER = 10**9


def busy(iterations, **fields):
    x = np.ones((1, 1), np.float32)
    inputs = [("x", x), ("iterations", np.array(iterations, np.int64))]
    return messages.request("loop_busy", inputs, **fields)


def late(stub, request, **options):
    options.setdefault("timeout", harness.PATIENCE)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, **options)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED, caught.value
    return caught.value


def is_free(server, stub):
    """Nothing runs or waits any more, and the model answers."""
    held = lambda: server.metric("onnxd_running", model="loop_busy") + server.metric(
        "onnxd_queue_jobs", model="loop_busy"
    )
    harness.wait_until(lambda: held() == 0, "the run has ended")
    answer = stub.ModelInfer(busy(3), timeout=harness.PATIENCE)
    assert messages.array(answer).item() == 4


def test_the_header(server, stub):
    began = time.monotonic()
    late(stub, busy(FOREVER), timeout=0.3)
    assert 0.25 < time.monotonic() - began < 5
    is_free(server, stub)


def test_the_header_on_the_server(server, stub):
    # A client ends a late call by itself, so ask the server what it has seen.
    outcomes = ("late_in_execution", "late_in_queue", "late_at_arrival", "cancelled")
    seen = lambda: sum(
        server.metric("onnxd_requests_total", model="loop_busy", outcome=outcome)
        for outcome in outcomes
    )
    before = seen()
    late(stub, busy(FOREVER), timeout=0.2)
    harness.wait_until(lambda: seen() == before + 1, "the server has ended it too")
    is_free(server, stub)


def test_the_parameter(server, stub):
    request = busy(FOREVER)
    request.parameters["timeout"].int64_param = 200_000
    began = time.monotonic()
    error = late(stub, request)
    assert 0.15 < time.monotonic() - began < 5
    assert "execution" in error.details()
    is_free(server, stub)


def overdue_in_the_queue(stub, timeout):
    """By how much eleven calls that wait in vain are late as their caller sees it: the median."""
    took = []
    for _ in range(11):
        # Another number of iterations cannot ride with the run that goes on, so it waits.
        request = busy(FOREVER - 1)
        request.parameters["timeout"].int64_param = round(timeout * 10**6)
        sent_at = time.monotonic()
        error = late(stub, request)
        took.append(time.monotonic() - sent_at)
        assert error.details() == "deadline passed (queue)"
    assert min(took) >= timeout
    return statistics.median(took) - timeout


def test_in_the_queue(server, stub):
    count = lambda name, **labels: server.metric(name, model="loop_busy", **labels)
    counted = lambda: count("onnxd_requests_total", outcome="late_in_queue")
    late_before, runs_before = counted(), count("onnxd_batches_total")
    first = stub.ModelInfer.future(busy(FOREVER), timeout=2 * harness.PATIENCE)
    harness.wait_until(lambda: count("onnxd_running") == 1, "the first runs")
    # A server that is late is late every time; a machine that is busy is so for a while.
    overdue = [overdue_in_the_queue(stub, 0.2)]
    while overdue[-1] > 0.02 and len(overdue) < 10:
        overdue.append(overdue_in_the_queue(stub, 0.2))
    assert overdue[-1] <= 0.02, overdue
    assert counted() == late_before + 11 * len(overdue)
    first.cancel()
    is_free(server, stub)
    # The first has run and what asks whether the model is free; what waited has not.
    assert count("onnxd_batches_total") == runs_before + 2


def test_in_a_stream_only_that_message(server, stub):
    slow = busy(FOREVER, id="slow")
    slow.parameters["timeout"].int64_param = 200_000
    requests = [busy(1, id="first"), slow, busy(2, id="last")]
    answers = list(stub.ModelStreamInfer(iter(requests), timeout=harness.PATIENCE))
    assert [each.infer_response.id for each in answers] == ["first", "slow", "last"]
    assert "deadline" in answers[1].error_message
    assert not answers[0].error_message and not answers[2].error_message
    is_free(server, stub)


def test_of_a_whole_stream(server, stub):
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.ModelStreamInfer(iter([busy(1), busy(FOREVER)]), timeout=0.3))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    is_free(server, stub)


def test_given_up_by_the_caller(server, stub):
    call = stub.ModelInfer.future(busy(FOREVER), timeout=harness.PATIENCE)
    running = lambda: server.metric("onnxd_running", model="loop_busy") == 1
    harness.wait_until(running, "it runs")
    call.cancel()
    is_free(server, stub)
