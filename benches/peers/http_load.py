"""Load over HTTP/1.1 for a peer that does not speak gRPC, in the shapes of `onnxd bench`.

A closed loop (--concurrency), each caller with a connection of its own, or an open loop (--rate) at
random intervals, where a caller that gives up at its deadline closes its connection. Prints the figures
as `onnxd bench --json` does, as far as the table needs them. Python costs some tens of microseconds a
request: latencies are too high by that, and what the server spends is not.
"""

import argparse
import array
import asyncio
import collections
import json
import random
import resource
import time

# An open loop beyond this is the generator's own trouble.
MOST_CONNECTIONS = 2000
GIVEN_UP = "deadline"


class Caller(asyncio.Protocol):
    """A connection with one request in flight at most."""

    def __init__(self, ended):
        self.ended, self.buffer, self.sent_at = ended, b"", None

    def connection_made(self, transport):
        self.transport = transport

    def send(self, request, at):
        self.sent_at = at
        self.transport.write(request)

    def data_received(self, data):
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length or 0):
            return
        self.buffer = b""
        self.finish(head[9:12].decode())

    def connection_lost(self, _):
        self.finish("closed")

    def finish(self, code):
        if self.sent_at is not None:
            sent_at, self.sent_at = self.sent_at, None
            self.ended(self, code, time.perf_counter() - sent_at)


class Figures:
    def __init__(self, timeout):
        self.timeout, self.latencies = timeout, []
        self.codes, self.late = collections.Counter(), 0

    def record(self, code, took):
        self.codes["0" if code == "200" else code] += 1
        if code == "200":
            self.latencies.append(took)
            self.late += self.timeout is not None and took > self.timeout

    def printed(self, seconds, cpu):
        self.latencies.sort()
        answers = len(self.latencies)
        at = {
            f"p{share}": 1e6 * self.latencies[min(answers * share // 100, answers - 1)]
            for share in (50, 90, 99)
            if answers
        }
        figures = {
            "seconds": seconds,
            "answers": answers,
            "answers_per_second": answers / seconds,
            "late": self.late,
            "codes": self.codes,
            "latency_us": at,
            "generator": {"cpu_share": cpu / seconds},
        }
        print(json.dumps(figures))


async def closed(options, request, connect, figures):
    until = time.perf_counter() + options.duration
    left, done = options.concurrency, asyncio.get_running_loop().create_future()

    def ended(caller, code, took):
        nonlocal left
        figures.record(code, took)
        if code != "closed" and time.perf_counter() < until:
            caller.send(request, time.perf_counter())
            return
        left -= 1
        if not left:
            done.set_result(None)

    for caller in [await connect(ended) for _ in range(options.concurrency)]:
        caller.send(request, time.perf_counter())
    await done


async def open_loop(options, request, connect, figures):
    until, idle, busy = time.perf_counter() + options.duration, [], set()

    def ended(caller, code, took):
        busy.discard(caller)
        figures.record(code, took)
        if code != "closed" and not caller.transport.is_closing():
            idle.append(caller)

    def give_up(caller):
        """Counts as an answer that never came."""
        caller.sent_at = None
        busy.discard(caller)
        caller.transport.abort()
        figures.codes[GIVEN_UP] += 1

    async def call(due):
        while idle and idle[-1].transport.is_closing():
            idle.pop()
        if not idle and len(busy) >= MOST_CONNECTIONS:
            figures.codes["no connection"] += 1
            return
        caller = idle.pop() if idle else await connect(ended)
        busy.add(caller)
        caller.send(request, due)
        if figures.timeout and not options.no_cancel:
            await asyncio.sleep(max(due + figures.timeout - time.perf_counter(), 0))
            if caller.sent_at == due:
                give_up(caller)

    calls, due, chance = set(), time.perf_counter(), random.Random(1)
    while (due := due + chance.expovariate(options.rate)) < until:
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        task = asyncio.ensure_future(call(due))
        calls.add(task)
        task.add_done_callback(calls.discard)
    await asyncio.gather(*calls)
    while busy and time.perf_counter() < until + 10:
        await asyncio.sleep(0.01)


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("--floats", type=int, help="floats in a request")
    parser.add_argument("--ints", type=int, help="32-bit integers in a request")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--duration", type=float, default=5)
    parser.add_argument("--timeout-ms", type=float)
    parser.add_argument("--no-cancel", action="store_true")
    options = parser.parse_args()
    # The numbers of `onnxd bench`.
    if options.ints:
        body = array.array("i", (index % 16 for index in range(options.ints))).tobytes()
    else:
        body = array.array("f", (index % 16 / 16 for index in range(options.floats))).tobytes()
    head = f"POST /inference HTTP/1.1\r\nHost: {options.address}\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    host, port = options.address.split(":")
    loop = asyncio.get_running_loop()

    async def connect(ended):
        return (await loop.create_connection(lambda: Caller(ended), host, int(port)))[1]

    figures = Figures(options.timeout_ms and options.timeout_ms / 1000)
    begun_at, kind = time.perf_counter(), open_loop if options.rate else closed
    await kind(options, request, connect, figures)
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures.printed(time.perf_counter() - begun_at, used.ru_utime + used.ru_stime)


if __name__ == "__main__":
    asyncio.run(main())
