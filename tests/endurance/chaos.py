#!/usr/bin/env python3
"""Everything at once, at random times: is an accepted request lost, an answer wrong, does it grow?

    make chaos                    (ARGS="--minutes 1 --seed 7")

Callers of all kinds go on while the server is stopped and started, killed, given new models, broken
models and new certificates, left without descriptors, and visited by peers that mean no good. Every
request ends in a ledger. Ends with a summary and exit code 0, or with what went wrong and 1. The seed
that is printed gives the same events again.
"""

import argparse
import asyncio
import json
import pathlib
import random
import resource
import sys
import tempfile
import time

import peers
import process
from load import Load
from server import BINARY, ROOT, Server

# What ends a call that the server never took, in the words of the gRPC library.
NOT_TAKEN = ("failed to connect", "connection refused", "goaway", "shutting down", "not ready",
             "connections to all backends failing", "handshake", "too_many_pings")
# What the gRPC library makes of a message that it could not write because the call had ended: the
# server's own words are lost then.
LOST_WORDS = "internal error from core"
# How long the gRPC library waits before it connects again, and a little, in seconds.
RECONNECT = 2.0
# After a model or a certificate was put down, how long until nothing of the old is left, seconds.
SETTLE = 1.0


class Chaos:
    def __init__(self, server, load, seed):
        self.server, self.load = server, load
        self.random = random.Random(seed)
        self.down, self.events, self.faults = [], {}, []
        self.begun_at = time.monotonic()

    def happened(self, what):
        self.events[what] = self.events.get(what, 0) + 1

    async def restart(self, how):
        begun_at = time.monotonic()
        code = await asyncio.to_thread(getattr(self.server, how))
        if how == "terminate" and code != 0:
            self.faults.append(f"exit code {code} after SIGTERM: accepted requests were given up")
        await asyncio.to_thread(self.server.start)
        self.down.append((how, begun_at, time.monotonic() + RECONNECT))

    async def terminate(self):
        await self.restart("terminate")

    async def kill(self):
        await self.restart("kill")

    async def swap_model(self):
        await asyncio.to_thread(self.server.swap_model)

    async def break_model(self):
        await asyncio.to_thread(self.server.break_model)
        await asyncio.sleep(SETTLE)
        await asyncio.to_thread(self.server.swap_model)

    async def swap_certificate(self):
        self.server.swap_certificate()

    async def descriptors(self):
        """No descriptor is left for new connections."""
        pid = self.server.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (process.descriptors(pid) + 1, hard))
        begun_at = time.monotonic()
        await peers.crowd(self.server.addresses["grpc"], self.random.random(), 20, 1.0)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        # Callers who wanted to connect meanwhile could not; those who were connected are served.
        self.down.append(("descriptors", begun_at, time.monotonic() + RECONNECT))

    async def hostile(self):
        address = self.server.addresses[self.random.choice(("grpc", "http"))]
        await peers.crowd(address, self.random.random(), 40, 3.0)

    async def crash_client(self):
        """A client in the middle of its calls that is gone from one moment to the next."""
        channel = self.server.connect()
        crowd = Load(lambda: channel, self.random.randrange(10**6), 0, 1, streams=0)
        crowd.requests.table = self.load.requests.table
        import tritonclient.grpc.service_pb2_grpc as stubs

        stub = stubs.GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer(crowd.requests.good("add_i64")[0], timeout=5) for _ in range(50)]
        await asyncio.sleep(self.random.uniform(0, 0.02))
        await channel.close(grace=0)
        await asyncio.gather(*calls, return_exceptions=True)

    async def run(self, seconds):
        kinds = [
            self.terminate, self.kill, self.swap_model, self.break_model, self.swap_certificate,
            self.descriptors, self.hostile, self.crash_client,
        ]
        end = time.monotonic() + seconds
        # Each kind once in any run, then whatever comes.
        plan = self.random.sample(kinds, len(kinds))
        while time.monotonic() < end or plan:
            event = plan.pop() if plan else self.random.choice(kinds)
            self.happened(event.__name__)
            left = max(0, end - time.monotonic())
            passed = time.monotonic() - self.begun_at
            print(
                f"{passed:6.1f} s, {left:4.0f} s left: {event.__name__}", file=sys.stderr, flush=True
            )
            await event()
            await asyncio.sleep(self.random.uniform(0.5, 3.0))

    async def end(self):
        """Judges, once nobody calls any more."""
        self.judge()
        if left := await until_idle(self.server):
            self.faults.append(f"held by nobody: {left}")

    def excuse(self, begun_at, ended_at):
        """What was down while a request was under way."""
        found = {how for how, since, until in self.down if begun_at < until and ended_at > since}
        return found

    def judge(self):
        """Requests that ended as they must not."""
        for kind, begun_at, ended_at, code, text in self.load.ledger.lines:
            if code == "OK" and kind != "poisoned":
                continue
            if kind == "poisoned" and code in ("INVALID_ARGUMENT", "INTERNAL"):
                continue
            if kind == "cancelled" and code == "CANCELLED":
                continue
            if kind == "hurried" and code in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"):
                continue
            down = self.excuse(begun_at, ended_at)
            # A server that has just started says that it is loading, and never that a model is not there.
            is_lost = code in ("UNAVAILABLE", "CANCELLED", "INTERNAL", "ERROR", "DEADLINE_EXCEEDED")
            if "kill" in down and is_lost or "descriptors" in down and code == "UNAVAILABLE":
                continue
            text = (text or "").lower()
            # Accepted streams are told so in the stream: before a drain, or before models are there.
            is_told = "shutting down" in text or "not ready" in text
            if kind == "streamed" and code == "ERROR" and down and is_told:
                continue
            if kind == "streamed" and down and code == "INTERNAL" and LOST_WORDS in text:
                continue
            if down and code == "UNAVAILABLE" and any(words in text for words in NOT_TAKEN):
                continue
            when = f"{begun_at - self.begun_at:.1f} s to {ended_at - self.begun_at:.1f} s"
            found = ", ".join(sorted(down)) or "nothing"
            self.faults.append(
                f"{kind} ended with {code} ({text[:120]}); down: {found}; from {when}"
            )
        self.faults += [f"wrong answer: {text}" for text in self.load.ledger.wrong]
        if self.load.ledger.sent != self.load.ledger.ended():
            self.faults.append(f"sent {self.load.ledger.sent}, ended {self.load.ledger.ended()}")


def held(pid):
    """Memory in KiB, threads, descriptors."""
    return process.resident_kib(pid), process.threads(pid), process.descriptors(pid)


async def until_idle(server):
    end = time.monotonic() + 30
    while busy := await asyncio.to_thread(process.busy, server.addresses["admin"]):
        if time.monotonic() > end:
            return busy
        await asyncio.sleep(0.05)
    return {}


async def main(options):
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        server.start()
        load = Load(server.connect, options.seed, options.callers, options.rate)
        await load.start()
        await asyncio.sleep(1)
        begun_at = time.monotonic()
        chaos = Chaos(server, load, options.seed)
        await chaos.run(options.minutes * 60)
        # A last life without events: what it holds at its end is what a day would hold.
        await chaos.terminate()
        await asyncio.sleep(2)
        first = held(server.pid)
        await asyncio.sleep(options.calm)
        await load.stop()
        await chaos.end()
        last = held(server.pid)
        if last[0] > 1.2 * first[0] + 8192:
            chaos.faults.append(f"grew from {first[0]} to {last[0]} KiB in {options.calm} s")
        if last[1] > first[1] + 2:
            chaos.faults.append(f"threads: {first[1]}, then {last[1]}")
        # Callers were connected at first, and are not at the end.
        if last[2] > first[2]:
            chaos.faults.append(f"descriptors: {first[2]}, then {last[2]}")
        code = server.terminate()
        if code != 0:
            chaos.faults.append(f"last exit code {code}")
        log = pathlib.Path(folder, "log").read_text(errors="replace")
        panics = [line for line in log.splitlines() if "panicked" in line]
        chaos.faults += panics[:5]
        return report(options, chaos, load, first, last, time.monotonic() - begun_at, log)


def report(options, chaos, load, first, last, seconds, log):
    print(f"chaos with seed {options.seed}: {seconds:.0f} s, {load.ledger.sent} requests")
    print("events     " + ", ".join(f"{what} {count}" for what, count in sorted(chaos.events.items())))
    kinds = {}
    for (kind, code), count in sorted(load.ledger.codes().items()):
        kinds.setdefault(kind, []).append(f"{code} {count}")
    for kind, codes in kinds.items():
        print(f"{kind:10} {', '.join(codes)}")
    for what, before, after in zip(("KiB", "threads", "descriptors"), first, last):
        print(f"{what:11} {before}, after {options.calm:.0f} s of load {after}")
    for fault in chaos.faults[:20]:
        print(f"FAULT      {fault}")
    if len(chaos.faults) > 20:
        print(f"FAULT      and {len(chaos.faults) - 20} more: {ROOT / 'bench-out' / 'chaos.json'}")
    if chaos.faults:
        print("\n".join(log.splitlines()[-30:]))
    print("FAILED" if chaos.faults else "nothing lost, nothing wrong, nothing grown")
    out = ROOT / "bench-out" / "chaos.json"
    out.parent.mkdir(exist_ok=True)
    codes = {f"{kind} {code}": count for (kind, code), count in load.ledger.codes().items()}
    figures = {"seed": options.seed, "seconds": seconds, "events": chaos.events, "codes": codes}
    out.write_text(json.dumps({**figures, "faults": chaos.faults}, indent=1))
    return 1 if chaos.faults else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--calm", type=float, default=15.0, help="seconds without events at the end")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--rate", type=float, default=150.0, help="requests a second")
    chosen = parser.parse_args()
    print(f"{BINARY}, seed {chosen.seed}", file=sys.stderr)
    sys.exit(asyncio.run(main(chosen)))
