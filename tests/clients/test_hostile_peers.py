"""Peers that mean no good, and what they cost: memory, descriptors, time of the processor, others."""

import contextlib
import os
import resource
import socket
import subprocess
import sys
import zlib

import numpy as np
import pytest
import zstandard

import frames
import harness
import messages
from frames import (
    DATA, END_STREAM, HEADERS, PREFACE, PRIORITY, RESET, WINDOW, Connection, frame, headers, message,
    number,
)

MIB = 1 << 20
GOOD = message(
    messages.request("identity_f32", [("x", np.ones((1, 2), np.float32))]).SerializeToString()
)
EXHAUSTED = "8"


@pytest.fixture
def serve(tmp_path):
    """Starts servers of their own, with the flags that are given."""
    harness.copy_models(tmp_path, "identity_f32", "identity_string")
    started = []

    def start(*flags):
        server = harness.Server(tmp_path, "--strict", *flags)
        started.append(server)
        # What is made once, at the first request, is not theirs to pay.
        with Connection(server.grpc) as connection:
            assert connection.outcome(connection.call(GOOD))[0] == "0"
        return server

    yield start
    for server in started:
        server.kill()


def memory_mib(server, kind="VmRSS"):
    """Memory that is resident now, or was at most (VmHWM)."""
    with open(f"/proc/{server.process.pid}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def processor_seconds(server):
    with open(f"/proc/{server.process.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def connect(address):
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=harness.PATIENCE)


def works(server):
    with Connection(server.grpc) as connection:
        return connection.works()


def all_closed(server):
    """Nothing of what peers have opened is left."""
    gauges = ("onnxd_connections", "onnxd_calls")
    harness.wait_until(lambda: not sum(server.metric(name) for name in gauges), "connections end")
    assert server.metric("onnxd_request_memory_bytes") == 0


# --- a few bytes that become many ----------------------------------------------------------------


def test_announced_lengths_take_no_memory(serve):
    """Six bytes of each message, of sixty mebibytes that are announced."""
    server = serve()
    before = memory_mib(server)
    with contextlib.ExitStack() as open_connections:
        for _ in range(300):
            connection = open_connections.enter_context(Connection(server.grpc))
            stream = next(connection.streams)
            begun = message(b"x")[5:]
            announced = b"\0" + number(60 * MIB) + begun
            connection.send(
                connection.head(stream, headers()), frame(DATA, 0, stream, announced)
            )
        harness.wait_until(
            lambda: server.metric("onnxd_request_memory_bytes") >= 300, "all have begun"
        )
        assert works(server)
        # About as much as connections without a call take.
        assert memory_mib(server, "VmHWM") - before < 64
    all_closed(server)
    with Connection(server.grpc) as connection:
        stream = next(connection.streams)
        huge = frame(DATA, 0, stream, b"\0" + number(2**32 - 1) + b"x")
        connection.send(connection.head(stream, headers()), huge)
        code, text = connection.outcome(stream)
        assert code == EXHAUSTED and "4294967295" in text and str(64 * MIB) in text, text
        assert connection.works()


AMPLIFIED = {
    # Two bytes each; three hundred in memory.
    "inputs": b"\x2a\x00" * (2 * MIB),
    "outputs": b"\x32\x00" * (2 * MIB),
    "raw contents": b"\x3a\x00" * (2 * MIB),
    "parameters": b"\x22\x00" * (2 * MIB),
}


@pytest.mark.parametrize("what", AMPLIFIED)
def test_empty_parts_of_a_message_take_no_memory(serve, what):
    server = serve()
    before = memory_mib(server)
    for _ in range(5):
        with Connection(server.grpc) as connection:
            code, text = connection.outcome(connection.call(message(AMPLIFIED[what])))
            assert code == "3" and "more than" in text.replace("%20", " "), text
            assert connection.works()
    # The message itself, its copy while it grows, and windows of connections.
    assert memory_mib(server, "VmHWM") - before < 32


def gzip_bomb(mebibytes):
    """Zeros, from one block that is repeated."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = lambda: deflate.compress(bytes(MIB)) + deflate.flush(zlib.Z_FULL_FLUSH)
    first, again = block(), block()
    return b"\x1f\x8b\x08" + bytes(7) + first + again * (mebibytes - 1) + b"\x03\x00"


def zstd_bomb(mebibytes):
    zstd = zstandard.ZstdCompressor(level=1).compressobj()
    return b"".join([zstd.compress(bytes(MIB)) for _ in range(mebibytes)]) + zstd.flush()


@pytest.mark.parametrize("encoding, bomb", [("gzip", gzip_bomb), ("zstd", zstd_bomb)])
def test_a_gibibyte_of_zeros_does_not_come_out(serve, encoding, bomb):
    sent = message(bomb(1024), flag=1)
    assert len(sent) < 2 * MIB
    off = serve()
    with Connection(off.grpc) as connection:
        code, _ = connection.outcome(connection.call(sent, ("grpc-encoding", encoding)))
        assert code == "12" and connection.works()
    off.kill()
    server = serve("--compression", "gzip,zstd", "--max-message-bytes", str(16 * MIB))
    before = memory_mib(server)
    peaks = []
    for repeat in range(1, 101):
        with Connection(server.grpc) as connection:
            code, text = connection.outcome(connection.call(sent, ("grpc-encoding", encoding)))
            assert code == EXHAUSTED, text
            assert connection.works()
        if repeat in (20, 100):
            peaks.append(memory_mib(server, "VmHWM"))
    assert peaks[-1] - before < 16 + 32
    assert peaks[-1] - peaks[0] < 8, peaks


# --- many, and none of them goes on --------------------------------------------------------------


def test_two_thousand_that_say_nothing_keep_nobody_out(serve):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    server = serve("--handshake-ms", "2000")
    start = descriptors(server)
    silent = []
    try:
        for count in range(2000):
            peer = connect(server.grpc)
            with contextlib.suppress(OSError):
                # Nothing, half a hello of TLS, half a preface.
                peer.sendall((b"", bytes([22, 3, 1, 0, 47]), PREFACE[:11])[count % 3])
            silent.append(peer)
            if count % 400 == 399:
                harness.wait_until(lambda: reached(server), "somebody who speaks is served")
        harness.wait_until(lambda: server.metric("onnxd_connections", port="grpc") == 0, "an end")
        assert descriptors(server) <= start
    finally:
        for peer in silent:
            peer.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def reached(server):
    try:
        return works(server)
    except OSError:
        return False


def test_without_descriptors_it_waits_and_does_not_spin(serve):
    server = serve()
    with Connection(server.grpc) as kept:
        assert kept.works()
        soft, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (descriptors(server), hard))
        crowd = [connect(server.grpc) for _ in range(50)]
        spent = processor_seconds(server)
        warnings = lambda: [line for line in server.log if "cannot accept" in line]
        # Each pause is twice the one before, up to a second: the sixth comes after a second and a half.
        harness.wait_until(lambda: any("pause_ms=1000" in line for line in warnings()), "a pause")
        assert processor_seconds(server) - spent < 0.75
        assert len(warnings()) <= 8, warnings()
        assert kept.works(), "what is open goes on"
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        for peer in crowd:
            peer.close()
        harness.wait_until(lambda: reached(server), "newcomers are served again")


# --- calls that are opened and taken back --------------------------------------------------------


def take_back(connection, count, make):
    """Opens so many calls; what `make` gives for each comes after its headers."""
    connection.settings()
    with contextlib.suppress(OSError):
        for _ in range(count):
            stream = next(connection.streams)
            connection.send(connection.head(stream, headers()), make(stream))


def test_calls_that_are_taken_back_at_once_end_their_connection(serve):
    server = serve()
    spent = processor_seconds(server)
    with Connection(server.grpc) as connection:
        connection.settings()
        ended = False
        for _ in range(200):
            pairs = []
            for _ in range(100):
                stream = next(connection.streams)
                pairs += [connection.head(stream, headers()), frame(RESET, 0, stream, number(8))]
            try:
                connection.send(*pairs)
            except OSError:
                ended = True
                break
        assert ended or connection.is_closed(), "twenty thousand are no honest peer's"
    assert processor_seconds(server) - spent < 5
    assert works(server)
    all_closed(server)


def test_an_honest_peer_may_give_up_five_hundred_calls_at_a_time(serve):
    server = serve()
    with Connection(server.grpc) as connection:
        connection.settings()
        for _ in range(6):
            opened, given_up = [], []
            for _ in range(250):
                stream = next(connection.streams)
                opened.append(connection.head(stream, headers()))
                given_up.append(frame(RESET, 0, stream, number(8)))
            connection.send(*opened, *given_up)
            assert connection.works()
    all_closed(server)


@pytest.mark.parametrize(
    "make",
    [
        lambda stream: frame(WINDOW, 0, stream, number(2**31 - 1)),
        lambda stream: frame(PRIORITY, 0, stream, number(stream) + b"\x10"),
    ],
    ids=["window", "priority"],
)
def test_who_makes_the_server_reset_calls_is_ended(serve, make):
    server = serve()
    with Connection(server.grpc) as connection:
        take_back(connection, 3000, make)
        assert connection.is_closed()
    assert works(server)
    all_closed(server)


# --- small parts, and answers that are not read --------------------------------------------------


def test_small_messages_of_a_stream_that_waits_do_not_end_its_connection(serve):
    server = serve("--stream-window", "4")
    with Connection(server.grpc) as connection:
        announced = connection.settings()
        # The connection's own window begins at 64 KiB, whatever the settings say of calls.
        while connection.room < announced[4]:
            connection.next()
        stream = next(connection.streams)
        connection.send(connection.head(stream, headers("ModelStreamInfer")))
        count = min(announced[4] // len(GOOD), 5000)
        for _ in range(0, count, 100):
            connection.send(*[frame(DATA, 0, stream, GOOD)] * 100)
        connection.send(frame(DATA, END_STREAM, stream))
        # The peer's windows are small: it must make room for the answers.
        code = None
        answered = 0
        while code is None:
            kind, flags, about, payload = connection.next()
            if kind == DATA:
                answered += len(payload)
                room = number(max(1, len(payload)))
                connection.send(frame(WINDOW, 0, 0, room), frame(WINDOW, 0, stream, room))
            elif kind == HEADERS and flags & END_STREAM:
                code = dict(connection.decoder.decode(payload))["grpc-status"]
            elif kind == HEADERS:
                connection.decoder.decode(payload)
            else:
                assert kind not in (RESET, frames.GOAWAY), (kind, payload)
        assert code == "0" and answered > count * 20
    all_closed(server)


def test_answers_that_nobody_reads_are_given_up(serve):
    server = serve("--write-stall-ms", "500", "--request-memory-bytes", str(64 * MIB))
    big = messages.request("identity_f32", [("x", np.zeros((1, MIB), np.float32))])
    big = message(big.SerializeToString())
    before = memory_mib(server)
    # One opens no window for its answers, the other reads nothing at all.
    with Connection(server.grpc, [(4, 0)]) as shut, Connection(
        server.grpc, [(4, 2**31 - 1)], receive_bytes=4096
    ) as deaf:
        deaf.send(frame(WINDOW, 0, 0, number(2**31 - 1 - 65535)))
        asked = [shut.call(big) for _ in range(4)]
        for _ in range(4):
            with contextlib.suppress(OSError):
                deaf.call(big)
        assert works(server)
        # The first one was begun, as far as its window went, and then reset.
        assert shut.outcome(asked[0])[0].startswith("stream: ")
        harness.wait_until(
            lambda: server.metric("onnxd_request_memory_bytes") == 0, "their answers are let go"
        )
        assert works(server)
        assert memory_mib(server, "VmHWM") - before < 2 * 64 + 32
    all_closed(server)


def test_a_peer_that_is_killed_leaves_nothing(serve):
    """Processes in the middle of their calls that are gone from one moment to the next."""
    server = serve()
    code = (
        "import sys; sys.path.insert(0, '.'); import frames, test_hostile_peers as peers\n"
        f"connection = frames.Connection('{server.grpc}')\n"
        "for _ in range(50): connection.call(peers.GOOD)\n"
        "print('called', flush=True)\n"
        "sys.stdin.read()\n"
    )
    peers = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for peer in peers:
        assert peer.stdout.readline() == b"called\n"
        peer.kill()
        peer.wait()
        peer.stdin.close()
        peer.stdout.close()
    all_closed(server)
    assert works(server)
