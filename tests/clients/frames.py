"""HTTP/2 by hand: frames as they are, for what no client library sends."""

import collections
import contextlib
import itertools
import socket
import struct
import time

import hpack

import harness

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, ACK = 1, 4, 8, 1
ERRORS = (
    "NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED "
    "FRAME_SIZE_ERROR REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM "
    "INADEQUATE_SECURITY HTTP_1_1_REQUIRED"
).split()
SERVICE = "/inference.GRPCInferenceService/"


def frame(kind, flags, stream, payload=b""):
    length = struct.pack(">I", len(payload))[1:]
    return length + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def number(value):
    return struct.pack(">I", value)


def message(body, flag=0):
    """A message of gRPC: a flag, a length, the message."""
    return bytes([flag]) + number(len(body)) + body


def headers(method="ModelInfer", *more, path=None):
    """The headers of a call."""
    found = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", SERVICE + method if path is None else path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    return found + list(more)


class Ended(Exception):
    """The peer has closed the connection."""


class Connection:
    """One connection. Reads only when it is told to."""

    def __init__(self, address, settings=(), greet=True, receive_bytes=None):
        host, port = address.rsplit(":", 1)
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(harness.PATIENCE)
        self.socket.connect((host, int(port)))
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.heard = b""
        self.streams = itertools.count(1, 2)
        self.stashed = collections.deque()
        # What the peer has room for: on the connection, on each call, on a new call.
        self.room, self.rooms, self.first_room = 65535, {}, 65535
        if greet:
            pairs = b"".join(struct.pack(">HI", key, value) for key, value in settings)
            self.send(PREFACE, frame(SETTINGS, 0, 0, pairs))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *frames):
        self.socket.sendall(b"".join(frames))

    def head(self, stream, named, end=False):
        """The frame that opens a call."""
        flags = END_HEADERS | (END_STREAM if end else 0)
        return frame(HEADERS, flags, stream, self.encoder.encode(named))

    def call(self, body=b"", *more, method="ModelInfer"):
        """Sends a whole unary call; its stream."""
        stream = next(self.streams)
        self.send(self.head(stream, headers(method, *more)))
        self.body(stream, body)
        return stream

    def body(self, stream, body):
        """Sends the rest of a call, as the peer makes room for it; stops where it ends the call."""
        body = memoryview(body)
        while True:
            most = min(16384, self.room, self.first_room + self.rooms.get(stream, 0))
            part = body[:most]
            if len(part) == len(body):
                self.send(frame(DATA, END_STREAM, stream, bytes(part)))
                return
            if most > 0:
                self.send(frame(DATA, 0, stream, bytes(part)))
                body = body[most:]
                self.room -= most
                self.rooms[stream] = self.rooms.get(stream, 0) - most
                continue
            found = self.read(harness.PATIENCE)
            self.stashed.append(found)
            kind, flags, about, _ = found
            if about == stream and (kind == RESET or kind == HEADERS and flags & END_STREAM):
                return

    def next(self, patience=harness.PATIENCE):
        """The next frame: kind, flags, stream, payload."""
        return self.stashed.popleft() if self.stashed else self.read(patience)

    def read(self, patience=harness.PATIENCE):
        end = time.monotonic() + patience
        while len(self.heard) < 9 or len(self.heard) < 9 + int.from_bytes(self.heard[:3], "big"):
            self.socket.settimeout(max(0.001, end - time.monotonic()))
            try:
                more = self.socket.recv(1 << 16)
            except ConnectionError:
                more = b""
            if not more:
                raise Ended
            self.heard += more
        length = int.from_bytes(self.heard[:3], "big")
        kind, flags = self.heard[3], self.heard[4]
        stream = int.from_bytes(self.heard[5:9], "big")
        payload, self.heard = self.heard[9 : 9 + length], self.heard[9 + length :]
        if kind == WINDOW:
            more = int.from_bytes(payload, "big")
            if stream:
                self.rooms[stream] = self.rooms.get(stream, 0) + more
            else:
                self.room += more
        if kind == SETTINGS and not flags & ACK:
            self.first_room = dict(struct.iter_unpack(">HI", payload)).get(4, self.first_room)
            # A peer that has closed may still have said why.
            with contextlib.suppress(ConnectionError):
                self.send(frame(SETTINGS, ACK, 0))
        return kind, flags, stream, payload

    def settings(self):
        """What the peer announces, by number."""
        while True:
            kind, flags, _, payload = self.next()
            if kind == SETTINGS and not flags & ACK:
                return dict(struct.iter_unpack(">HI", payload))

    def outcome(self, stream, patience=harness.PATIENCE):
        """How a call ends: a code of gRPC as text and its message, or what ends it before, by name."""
        named = {}
        try:
            while True:
                kind, flags, found, payload = self.next(patience)
                if kind == GOAWAY and payload[4:8] != number(0):
                    return f"connection: {ERRORS[int.from_bytes(payload[4:8], 'big')]}", ""
                if kind == HEADERS:
                    assert flags & END_HEADERS
                    decoded = dict(self.decoder.decode(payload))
                    if found == stream:
                        named |= decoded
                if found != stream:
                    continue
                if kind == RESET:
                    return f"stream: {ERRORS[int.from_bytes(payload, 'big')]}", ""
                if flags & END_STREAM and kind in (DATA, HEADERS):
                    status = named.get("grpc-status", f"HTTP {named.get(':status')}")
                    return status, named.get("grpc-message", "")
        except Ended:
            return "closed", ""

    def works(self, patience=harness.PATIENCE):
        """Whether the next call on this connection is answered."""
        return self.outcome(self.call(message(b""), method="ServerLive"), patience)[0] == "0"

    def is_closed(self, patience=harness.PATIENCE):
        """Reads to the end of the connection."""
        try:
            while True:
                self.next(patience)
        except Ended:
            return True
        except TimeoutError:
            return False
