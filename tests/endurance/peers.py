"""Peers that are slow, silent, half gone or hostile. Each returns when it is done or cut off."""

import asyncio
import random
import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = struct.pack(">I", 0)[1:] + b"\x04\x00" + struct.pack(">I", 0)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


async def _talk(address, words, patience, linger=True):
    host, port = address.rsplit(":", 1)
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), patience)
    except (OSError, asyncio.TimeoutError):
        return
    try:
        writer.write(words)
        if linger:
            # Nothing that comes is of interest; the end of the connection is.
            await asyncio.wait_for(reader.read(-1), patience)
    except (OSError, asyncio.TimeoutError):
        pass
    finally:
        writer.transport.abort()


async def silent(address, patience):
    await _talk(address, b"", patience)


async def half_a_preface(address, patience):
    await _talk(address, PREFACE[:11], patience)


async def noise(address, patience):
    await _talk(address, random.randbytes(4096), patience)


async def resets(address, patience):
    """Opens streams and takes them back at once."""
    # HEADERS with an indexed :method POST, :scheme http, :path /, then RST_STREAM.
    pairs = (
        frame(1, 4, stream, b"\x83\x86\x84") + frame(3, 0, stream, struct.pack(">I", 8))
        for stream in range(1, 2001, 2)
    )
    await _talk(address, PREFACE + SETTINGS + b"".join(pairs), patience)


async def pings(address, patience):
    words = PREFACE + SETTINGS + b"".join(frame(6, 0, 0, bytes(8)) for _ in range(2000))
    await _talk(address, words, patience)


async def header_without_end(address, patience):
    first = frame(1, 0, 1, b"\x83\x86\x84")
    more = b"".join(frame(9, 0, 1, b"\x00\x01a\x7f\x00" + b"x" * 127) for _ in range(500))
    await _talk(address, PREFACE + SETTINGS + first + more, patience)


async def leaves_in_the_middle(address, patience):
    await _talk(address, PREFACE + SETTINGS + frame(1, 4, 1, b"\x83\x86\x84")[:12], patience, False)


ALL = (silent, half_a_preface, noise, resets, pings, header_without_end, leaves_in_the_middle)


async def crowd(address, seed, count, patience):
    chosen = random.Random(seed)
    await asyncio.gather(*(chosen.choice(ALL)(address, patience) for _ in range(count)))


def free_ports(count):
    """Ports that nobody has now; asked for together so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
