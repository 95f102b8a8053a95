"""What a server of the protocol does with frames that no client library sends.

A list of conformance: each case says what is sent and how it must end. Kinds of end: "served", a code
of gRPC, "call" (that call is reset and the connection goes on) and "connection" (it is ended; a peer
that breaks the framing may expect nothing else). With ONNXD_CONFORMANCE=HOST:PORT the list runs against
any server that has `identity_f32`.

Sources: RFC 9113, sections 4 to 8; gRPC over HTTP/2.
"""

import contextlib
import os
import struct

import numpy as np
import pytest

import frames
import messages
from frames import (
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY, PUSH,
    RESET, SETTINGS, WINDOW, Connection, frame, headers, message, number,
)

GOOD = message(
    messages.request("identity_f32", [("x", np.ones((1, 2), np.float32))]).SerializeToString()
)
INVALID, UNIMPLEMENTED, INTERNAL = "3", "12", "13"


@pytest.fixture(scope="module")
def address(request):
    return os.environ.get("ONNXD_CONFORMANCE") or request.getfixturevalue("server").grpc


def after(make):
    """A call that was opened, then what `make` gives for its stream."""

    def send(connection, stream):
        connection.send(connection.head(stream, headers()), make(stream))

    return send


def alone(*sent):
    return lambda connection, stream: connection.send(*sent)


def with_headers(named, body=GOOD):
    def send(connection, stream):
        connection.send(connection.head(stream, named), frame(DATA, END_STREAM, stream, body))

    return send


def with_body(body, *more):
    return with_headers(headers("ModelInfer", *more), body)


def finished(stream):
    return frame(DATA, END_STREAM, stream, GOOD)


def after_its_end(make):
    """A call that has ended, then what `make` gives for its stream."""

    def send(connection, stream):
        connection.send(connection.head(stream, headers("ServerLive")))
        connection.body(stream, message(b""))
        assert connection.outcome(stream) == ("0", "")
        connection.send(make(connection, stream))

    return send


def decreasing(connection, stream):
    connection.send(connection.head(stream + 4, headers()), connection.head(stream, headers()))


def in_single_bytes(connection, stream):
    parts = [frame(DATA, 0, stream, GOOD[at : at + 1]) for at in range(len(GOOD))]
    connection.send(connection.head(stream, headers()), *parts, frame(DATA, END_STREAM, stream))


def padded(connection, stream):
    body = b"\x03" + GOOD + bytes(3)
    connection.send(connection.head(stream, headers()), frame(DATA, PADDED | END_STREAM, stream, body))


def of_size(kibibytes):
    """Headers of that size, in as many frames as they need."""

    def send(connection, stream):
        fill = [(f"x-{number}", "y" * 1000) for number in range(kibibytes)]
        block = connection.encoder.encode(headers("ModelInfer", *fill), huffman=False)
        parts = [block[at : at + 16000] for at in range(0, len(block), 16000)]
        kinds = [HEADERS] + [CONTINUATION] * (len(parts) - 1)
        flags = [0] * (len(parts) - 1) + [END_HEADERS]
        sent = [frame(kind, flag, stream, part) for kind, flag, part in zip(kinds, flags, parts)]
        with contextlib.suppress(OSError):
            connection.send(*sent, finished(stream))

    return send


def without_end(part, count):
    """Headers that go on and on."""

    def send(connection, stream):
        first = frame(HEADERS, 0, stream, connection.encoder.encode(headers()))
        with contextlib.suppress(OSError):
            connection.send(first, *[frame(CONTINUATION, 0, stream, part)] * count)

    return send


def empty_parts(count):
    def send(connection, stream):
        opened = connection.head(stream, headers())
        with contextlib.suppress(OSError):
            connection.send(opened, *[frame(DATA, 0, stream)] * count, finished(stream))

    return send


def many(sent, count):
    """So many frames that ask for an answer, then a call."""

    def send(connection, stream):
        with contextlib.suppress(OSError):
            for _ in range(count // 1000):
                connection.send(sent * 1000)
            with_headers(headers())(connection, stream)

    return send


def setting(key, value):
    return alone(frame(SETTINGS, 0, 0, struct.pack(">HI", key, value)))


def path(text):
    return with_headers(headers(path=text))


def changed(*pairs, without=()):
    """The usual headers with others in place of some."""
    names = {name for name, _ in pairs} | set(without)
    kept = [pair for pair in headers() if pair[0] not in names]
    # Pseudo-headers come first.
    return with_headers(sorted([*pairs, *kept], key=lambda pair: not pair[0].startswith(":")))


INFER = "/inference.GRPCInferenceService/ModelInfer"
CASES = {
    # --- where frames belong
    "data on stream 0": (alone(frame(DATA, 0, 0, b"x")), "connection"),
    "headers on stream 0": (alone(frame(HEADERS, END_HEADERS, 0, b"\x83")), "connection"),
    "data on a stream that was not opened": (alone(frame(DATA, 0, 7, b"x")), "connection"),
    "a stream with an even number": (alone(frame(HEADERS, END_HEADERS, 2, b"\x83")), "connection"),
    "numbers of streams that decrease": (decreasing, "connection"),
    "data after the end": (after_its_end(lambda _, stream: frame(DATA, 0, stream, b"x")), "call"),
    "headers after the end": (
        after_its_end(lambda connection, stream: connection.head(stream, headers())),
        "connection",
    ),
    "priority on stream 0": (alone(frame(PRIORITY, 0, 0, number(3) + b"\x10")), "connection"),
    "reset on stream 0": (alone(frame(RESET, 0, 0, number(8))), "connection"),
    "reset of a stream that was not opened": (alone(frame(RESET, 0, 9, number(8))), "connection"),
    "settings on a stream": (after(lambda stream: frame(SETTINGS, 0, stream)), "connection"),
    "ping on a stream": (alone(frame(PING, 0, 1, bytes(8))), "connection"),
    "a push from a client": (
        after(lambda stream: frame(PUSH, END_HEADERS, stream, number(2) + b"\x82")),
        "connection",
    ),
    "a continuation of nothing": (
        after(lambda stream: frame(CONTINUATION, END_HEADERS, stream)),
        "connection",
    ),
    "another frame inside of headers": (
        alone(frame(HEADERS, 0, 1, b"\x83"), frame(PING, 0, 0, bytes(8))),
        "connection",
    ),
    # --- sizes
    "a frame above the size": (after(lambda stream: frame(DATA, 0, stream, bytes(16385))), "connection"),
    "headers above the size": (alone(frame(HEADERS, END_HEADERS, 1, bytes(20000))), "connection"),
    "padding longer than the frame": (
        after(lambda stream: frame(DATA, PADDED, stream, b"\x05ab")),
        "connection",
    ),
    "padding that fits": (padded, "served"),
    "priority of the wrong size": (after(lambda stream: frame(PRIORITY, 0, stream, b"abc")), "connection"),
    "reset of the wrong size": (after(lambda stream: frame(RESET, 0, stream, b"abc")), "connection"),
    "settings of the wrong size": (alone(frame(SETTINGS, 0, 0, bytes(5))), "connection"),
    "settings acknowledged with contents": (alone(frame(SETTINGS, ACK, 0, bytes(6))), "connection"),
    "ping of the wrong size": (alone(frame(PING, 0, 0, b"abc")), "connection"),
    "window of the wrong size": (alone(frame(WINDOW, 0, 0, b"abc")), "connection"),
    # --- values
    "a window made larger by nothing": (alone(frame(WINDOW, 0, 0, number(0))), "connection"),
    "a window of the connection that overflows": (
        alone(frame(WINDOW, 0, 0, number(2**31 - 1))),
        "connection",
    ),
    "a window of the call that overflows": (
        after(lambda stream: frame(WINDOW, 0, stream, number(2**31 - 1))),
        "call",
    ),
    "a stream that depends on itself": (
        after(lambda stream: frame(PRIORITY, 0, stream, number(stream) + b"\x10")),
        "call",
    ),
    "pushes allowed twice over": (setting(2, 2), "connection"),
    "a first window that overflows": (setting(4, 2**31), "connection"),
    "frames of one byte": (setting(5, 1), "connection"),
    # --- what is to be ignored
    "an unknown frame": (
        after(lambda stream: frame(0x42, 0xFF, stream, b"hello") + finished(stream)),
        "served",
    ),
    "an unknown setting": (
        after(lambda stream: frame(SETTINGS, 0, 0, struct.pack(">HI", 0x99, 1)) + finished(stream)),
        "served",
    ),
    "a priority": (
        after(lambda stream: frame(PRIORITY, 0, stream, number(0) + b"\x10") + finished(stream)),
        "served",
    ),
    # --- headers
    "headers that do not decode": (alone(frame(HEADERS, END_HEADERS, 1, b"\xff" * 6)), "connection"),
    "a name in capitals": (with_body(GOOD, ("X-Big", "1")), "connection"),
    "an unknown pseudo-header": (changed((":x", "1")), "connection"),
    "a header of HTTP/1": (with_body(GOOD, ("connection", "close")), "call"),
    "te that is not trailers": (changed(("te", "gzip")), "call"),
    "a pseudo-header after the others": (
        with_headers(headers()[1:] + [(":method", "POST")]),
        "call",
    ),
    "two paths": (with_headers([(":path", "/x")] + headers()), "call"),
    "no path": (changed(without=(":path",)), "call"),
    "an empty path": (path(""), "call"),
    "no method": (changed(without=(":method",)), "call"),
    "a length that is not kept": (with_body(GOOD, ("content-length", "3")), "call"),
    "headers below their bound": (of_size(14), "served"),
    "headers above their bound": (of_size(17), "HTTP 431"),
    "a mebibyte of headers": (of_size(1000), "connection"),
    "headers without end": (without_end(b"\x00\x01a\x7f\x00" + b"x" * 127, 500), "connection"),
    "headers without end and contents": (without_end(b"", 100_000), "connection"),
    # --- paths are compared letter by letter
    "a path without its slash": (path(INFER[1:]), "call"),
    "a path with two slashes": (path("/" + INFER), UNIMPLEMENTED),
    "a path with a slash inside": (path(INFER.replace("/M", "//M")), UNIMPLEMENTED),
    "a path with a slash at its end": (path(INFER + "/"), UNIMPLEMENTED),
    "a path in small letters": (path(INFER.lower()), UNIMPLEMENTED),
    "a path with a dot": (path(INFER.replace("/M", "/./M")), UNIMPLEMENTED),
    "a path with two dots": (path("/x/.." + INFER), UNIMPLEMENTED),
    "a path with an escaped slash": (path(INFER.replace("/M", "%2FM")), UNIMPLEMENTED),
    "a path with an escaped letter": (path(INFER.replace("/M", "/%4d")), UNIMPLEMENTED),
    "a path with its host": (path("http://localhost" + INFER), "call"),
    "a star": (path("*"), UNIMPLEMENTED),
    # --- messages
    "no message": (lambda connection, stream: connection.send(connection.head(stream, headers(), True)), INTERNAL),
    "half of a frame": (with_body(b"\0\0"), INTERNAL),
    "half of a message": (with_body(GOOD[:-3]), INTERNAL),
    "compressed and no encoding": (with_body(b"\1" + GOOD[1:]), INTERNAL),
    "a flag that is none": (with_body(b"\2" + GOOD[1:]), INTERNAL),
    "an encoding that is not read": (with_body(b"\1" + GOOD[1:], ("grpc-encoding", "gzip")), UNIMPLEMENTED),
    "an encoding that does not exist": (with_body(GOOD, ("grpc-encoding", "lzma")), UNIMPLEMENTED),
    "no encoding, said so": (with_body(GOOD, ("grpc-encoding", "identity")), "served"),
    "a content type with its format": (changed(("content-type", "application/grpc+proto")), "served"),
    # --- small frames, and many of them
    "a message in single bytes": (in_single_bytes, "served"),
    "fifty empty parts": (empty_parts(50), "served"),
    "twenty thousand empty parts": (empty_parts(20_000), "connection"),
    "twenty thousand pings": (many(frame(PING, 0, 0, bytes(8)), 20_000), "served"),
    "twenty thousand settings": (many(frame(SETTINGS, 0, 0), 20_000), "served"),
    "a peer that says goodbye": (
        after(lambda stream: frame(GOAWAY, 0, 0, number(0) + number(0)) + finished(stream)),
        "served",
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_a_frame(address, what):
    send, wanted = CASES[what]
    with Connection(address) as connection:
        stream = next(connection.streams)
        send(connection, stream)
        found, text = connection.outcome(stream)
        if wanted == "connection":
            # The reason may be lost where the peer still sends.
            assert found.startswith("connection: ") or found == "closed", (found, text)
        elif wanted == "call":
            assert found.startswith("stream: "), (found, text)
        else:
            assert found == {"served": "0"}.get(wanted, wanted), (found, text)
        if wanted != "connection" and "goodbye" not in what and "after the end" not in what:
            assert connection.works(), "the connection goes on"
    with Connection(address) as other:
        assert other.works(), "others are served"


def test_what_is_announced_is_what_is_configured(address):
    with Connection(address) as connection:
        announced = connection.settings()
    # Calls, window of a call, size of a frame, size of headers.
    assert announced == {3: 1024, 4: 512 << 10, 5: 16 << 10, 6: 16 << 10}


def test_windows_are_given_back(address):
    """More calls on one connection than its window holds, all of them reset half way."""
    with Connection(address) as connection:
        connection.settings()
        for _ in range(600):
            stream = next(connection.streams)
            opened = connection.head(stream, headers())
            part = frame(DATA, 0, stream, message(bytes(16000))[:16000])
            connection.send(opened, part, frame(RESET, 0, stream, number(8)))
            connection.room -= 16000
            while connection.room < 64000:
                connection.stashed.append(connection.read())
        assert connection.works()
