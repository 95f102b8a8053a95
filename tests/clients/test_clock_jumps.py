"""The wall clock jumps by an hour, in the server only: deadlines and durations do not notice, certificates
and signed tokens do."""

import base64
import json
import struct
import subprocess
import time
import urllib.request

import grpc
import numpy as np
import pytest
from certificates import Authority
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

import harness
import messages
from test_observability import Collector, traceparent

HOUR = 3600
FOREVER = 10**9
# Of real time, no test here takes as long: a duration above it has taken part in a jump.
LONG = 1000

# Moves what a process takes for the time of day by the seconds that a file says at that moment. Other
# clocks are as they are.
SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *moved_by;

__attribute__((constructor)) static void find(void) {
    const char *path = getenv("CLOCK_MOVED_BY");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *memory = file < 0 ? MAP_FAILED : mmap(0, 8, PROT_READ, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) _exit(99);
    close(file);
    moved_by = memory;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (!result && moved_by && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *moved_by;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *stored) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (stored) *stored = exact.tv_sec;
    return exact.tv_sec;
}
"""


class Clock:
    """The wall clock of a server."""

    def __init__(self, folder):
        self._file = folder / "moved_by"
        self._file.write_bytes(struct.pack("q", 0))
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(SHIM)
        flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-fno-builtin"]
        subprocess.run(["cc", *flags, "-o", library, source], check=True)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_MOVED_BY": str(self._file)}

    def move(self, seconds):
        """To so many seconds beside the right time, all at once."""
        with open(self._file, "r+b", buffering=0) as file:
            file.write(struct.pack("q", seconds))


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path)


@pytest.fixture
def serve(tmp_path, clock):
    """Starts servers of a model, whose clock it is."""
    running = []

    def start(model, *flags):
        if not (tmp_path / "models").exists():
            harness.copy_models(tmp_path / "models", model)
        words = map(str, flags)
        running.append(harness.Server(tmp_path / "models", *words, environment=clock.environment))
        return running[-1]

    yield start
    for server in running:
        server.stop()


def busy(iterations, **fields):
    x = np.ones((1, 1), np.float32)
    inputs = [("x", x), ("iterations", np.array(iterations, np.int64))]
    return messages.request("loop_busy", inputs, **fields)


def last_run(stub):
    """When the server believes that it ran something for the last time, in seconds from now."""
    (found,) = stub.ModelStatistics(pb.ModelStatisticsRequest(name="loop_busy")).model_stats
    return found.last_inference / 1000 - time.time()


def waits(server, number):
    queued = lambda: server.metric("onnxd_queue_jobs", model="loop_busy") == number
    harness.wait_until(queued, f"{number} wait")


def durations(server):
    """Every duration that the metrics tell, in seconds."""
    address = f"http://{server.admin}/metrics"
    with urllib.request.urlopen(address, timeout=harness.PATIENCE) as answer:
        text = answer.read().decode()
    kinds = {"_seconds": 1, "_seconds_sum": 1, "_seconds_total": 1, "_duration_us": 10**-6}
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        series, _, value = line.rpartition(" ")
        name = series.partition("{")[0]
        ends = [end for end in kinds if name.endswith(end)]
        if ends and "timestamp" not in name and name != "process_start_time_seconds":
            found[series] = float(value) * kinds[ends[0]]
    return found


def test_deadlines_and_durations_do_not_notice(serve, clock):
    collector = Collector()
    flags = ["--otlp-endpoint", collector.endpoint, "--metrics-compat", "triton"]
    server = serve("loop_busy", *flags)
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        patient = wait_through_jumps(server, stub, clock)
        # The clock jumps somewhere on the way of each of these.
        for count, moved in enumerate([HOUR, 0, -HOUR, HOUR, -HOUR, 0] * 20):
            call = stub.ModelInfer.future(
                busy(20_000 + count), timeout=harness.PATIENCE, metadata=traceparent().items()
            )
            clock.move(moved)
            assert messages.array(call.result()).item() == 20_001 + count
        # The shim is there: the server reads another time of day.
        for moved in (HOUR, -HOUR, 0):
            clock.move(moved)
            stub.ModelInfer(busy(1), timeout=harness.PATIENCE)
            assert abs(last_run(stub) - moved) < 120
    told = durations(server)
    assert len(told) > 20, told
    assert {series: took for series, took in told.items() if not 0 <= took < LONG} == {}
    # Those who waited are in there with all of their time.
    assert server.metric("onnxd_queue_seconds_sum", model="loop_busy") > sum(patient)
    server.terminate()
    server.wait()
    took = [(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 for span in collector.spans]
    collector.stop()
    assert len(took) > 200
    assert [each for each in took if not 0 <= each < LONG] == []


def wait_through_jumps(server, stub, clock):
    """Calls that wait while the clock jumps; how long those have waited at least that were answered."""
    first = stub.ModelInfer.future(busy(FOREVER), timeout=2 * harness.PATIENCE)
    running = lambda: server.metric("onnxd_running", model="loop_busy") == 1
    harness.wait_until(running, "the first runs")
    patient = [
        stub.ModelInfer.future(busy(number), timeout=harness.PATIENCE) for number in range(3, 8)
    ]
    waits(server, len(patient))
    all_wait_since = time.monotonic()
    for moved in (HOUR, -HOUR, 0):
        request = busy(FOREVER - 1)
        request.parameters["timeout"].int64_param = 2_000_000
        sent_at = time.monotonic()
        hurried = stub.ModelInfer.future(request, timeout=harness.PATIENCE)
        waits(server, len(patient) + 1)
        clock.move(moved)
        error = hurried.exception()
        assert 2 <= time.monotonic() - sent_at < 10, moved
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert "queue" in error.details()
        assert not any(call.done() for call in patient), moved
    waited = time.monotonic() - all_wait_since
    first.cancel()
    assert [messages.array(call.result()).item() for call in patient] == [4, 5, 6, 7, 8]
    return [waited] * len(patient)


def outcome(server, credentials):
    """What becomes of a call over a connection of its own; none if it is served."""
    options = [
        ("grpc.ssl_target_name_override", "localhost"),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.secure_channel(server.grpc, credentials, options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            stub.ServerLive(pb.ServerLiveRequest(), timeout=harness.PATIENCE)
        except grpc.RpcError as error:
            return error.code()
    return None


def test_certificates_hold_by_the_wall_clock(serve, clock, tmp_path):
    authority = Authority()
    authority.write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.pem())
    files = {"cert": "cert.pem", "key": "key.pem", "client-ca": "ca.pem"}
    flags = [word for name, file in files.items() for word in (f"--tls-{name}", tmp_path / file)]
    server = serve("identity_f32", *flags)
    shown = {
        # All of them still hold, or not yet, when the test ends, by a clock that nobody moves.
        "now": authority.caller(-HOUR // 2, HOUR // 2),
        "before": authority.caller(-HOUR * 3 // 2, -HOUR // 2),
        "later": authority.caller(HOUR // 2, HOUR * 3 // 2),
    }
    for moved, held in ((0, "now"), (HOUR, "later"), (-HOUR, "before"), (0, "now")):
        clock.move(moved)
        for name, (key, certificate) in shown.items():
            credentials = grpc.ssl_channel_credentials(authority.pem(), key, certificate)
            wanted = None if name == held else grpc.StatusCode.UNAVAILABLE
            assert outcome(server, credentials) == wanted, (moved, name)


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value):
    return encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def test_signed_tokens_hold_by_the_wall_clock(serve, clock, tmp_path):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_numbers()
    jwk = {"kty": "RSA", "kid": "r", "n": number(public.n), "e": number(public.e)}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    (tmp_path / "access.toml").write_text(
        '[jwt]\nissuer = "https://login"\naudience = "onnxd"\nalgorithms = ["RS256"]\n'
        'keys = "jwks.json"\n[[grant]]\nto = ["*"]\nmodels = ["*"]\nrights = ["infer"]\n'
    )

    def token(ends):
        """One that ends then, in seconds from now."""
        claims = {"iss": "https://login", "aud": "onnxd", "sub": "svc"}
        claims["exp"] = round(time.time()) + ends
        head = {"alg": "RS256", "kid": "r"}
        text = ".".join(encoded(json.dumps(part).encode()) for part in (head, claims))
        return f"{text}.{encoded(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    server = serve("identity_f32", "--access-file", tmp_path / "access.toml")
    later, over = token(HOUR // 2), token(-HOUR // 2)
    request = messages.request("identity_f32", [("x", np.ones((1, 2), np.float32))])
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def is_served(token):
            headers = [("authorization", f"Bearer {token}")]
            try:
                stub.ModelInfer(request, timeout=harness.PATIENCE, metadata=headers)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
                return False
            return True

        for moved, expected in ((0, [True, False]), (HOUR, [False, False]), (-HOUR, [True, True])):
            clock.move(moved)
            assert [is_served(later), is_served(over)] == expected, moved
