"""Processes on a processor of their own, what they cost, and the load on them.

For the scripts beside it. The load generator is `onnxd bench`, on the last processor.
"""

import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Puts on the load: the same, whatever server is measured.
BENCH = ROOT / "target" / "release" / "onnxd"
# The server.
ONNXD = pathlib.Path(os.environ.get("ONNXD_BIN") or BENCH).resolve()
# Those that this process may use: a container has some of the machine's.
ALLOWED = sorted(os.sched_getaffinity(0))
PROCESSORS = len(ALLOWED)
SERVER, GENERATOR = ALLOWED[0], ALLOWED[-1]
TICK = os.sysconf("SC_CLK_TCK")
# Longer than a server takes to start, or to end after SIGTERM.
PATIENCE = 120


def pinned(processors, command):
    return ["taskset", "-c", str(processors), *map(str, command)]


def family(pid):
    """The process and all below it."""
    found = [pid]
    for each in found:
        for task in read(f"/proc/{each}/task/*/children"):
            found += map(int, task.split())
    return found


def read(pattern):
    """What these files hold; those that are gone meanwhile hold nothing."""
    for path in pathlib.Path("/").glob(pattern.lstrip("/")):
        try:
            yield path.read_text()
        except OSError:
            pass


def machine_seconds():
    """Processor time of all processes, and what the machine below took away."""
    fields = pathlib.Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    return sum(int(fields[index]) for index in (0, 1, 2, 7)) / TICK


class Process:
    """A server and its children. Ended with SIGTERM, all that it started included."""

    def __init__(self, command, processors=SERVER, log=None, **options):
        options = {"stdout": subprocess.PIPE, "text": True, **options}
        self.begun_at = time.monotonic()
        with open(log or os.devnull, "w") as sink:
            # A session of its own, so that what outlives it can be told from others.
            self.process = subprocess.Popen(
                pinned(processors, command), stderr=sink, start_new_session=True, **options
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        family_before = family(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in family_before[1:]:
            # A number that was given to another process since is not of this session.
            if session_of(pid) == self.process.pid:
                os.kill(pid, 9)

    def cpu_seconds(self):
        """User and system time, of children that have ended, too."""
        total = 0
        for pid in family(self.process.pid):
            for text in read(f"/proc/{pid}/stat"):
                total += sum(map(int, text.rpartition(")")[2].split()[11:15]))
        return total / TICK

    def resident_mb(self):
        """What is shared between its processes counts once."""
        kilobytes = 0
        for pid in family(self.process.pid):
            for text in read(f"/proc/{pid}/smaps_rollup"):
                kilobytes += int(re.search(r"^Pss: +(\d+)", text, re.MULTILINE).group(1))
        return kilobytes * 1024 / 1e6

    def measured(self, command):
        """Figures that a load generator prints as JSON, and what the server spent meanwhile."""
        cpu, machine = self.cpu_seconds(), machine_seconds()
        done = subprocess.run(pinned(GENERATOR, command), capture_output=True, text=True)
        if done.returncode:
            raise LoadFailed(done.stderr.strip() or done.stdout.strip())
        load = json.loads(done.stdout)
        spent = self.cpu_seconds() - cpu
        others = machine_seconds() - machine - spent
        others = others / load["seconds"] - (load["generator"]["cpu_share"] or 0)
        load["others_share"] = max(others, 0.0)
        load["cpu_us"] = spent * 1e6 / max(load["answers"], 1)
        load["rss_mb"] = self.resident_mb()
        return load


class LoadFailed(Exception):
    """A load that did not take place, and why."""


class Server(Process):
    """An onnxd on ports of the system's choice."""

    def __init__(self, models, *flags, processors=SERVER, command=("serve",)):
        addresses = [f"--{port}-addr=127.0.0.1:0" for port in ("grpc", "http", "admin")]
        command = [ONNXD, *command, models, *addresses, "--log", "error", *flags]
        super().__init__(command, processors)
        self.address = announced(self.process)
        self.started_s = time.monotonic() - self.begun_at

    def load(self, model, *flags):
        command = [BENCH, "bench", model, "--addr", self.address, "--json", *flags]
        return self.measured(command)


class Floor(Process):
    """The smallest server: it decodes a request and gives ten canned numbers. It cannot describe
    models; `describer` is the address of a server that does."""

    def __init__(self, describer):
        super().__init__([own_bench(), "floor"])
        self.address, self.describer = announced(self.process), describer

    def load(self, model, *flags):
        command = [BENCH, "bench", model, "--addr", self.address, "--json", *flags]
        return self.measured([*command, "--describe", self.describer])


def own_bench():
    """What `cargo bench --bench server --no-run` has built."""
    built = (ROOT / "target" / "release" / "deps").glob("server-*")
    built = [path for path in built if not path.suffix]
    if not built:
        sys.exit("no floor: `cargo bench --bench server --no-run` builds it")
    return max(built, key=lambda path: path.stat().st_mtime)


def announced(process):
    """The address that a server prints, once it is ready."""
    for line in process.stdout:
        found = re.search(r"gRPC +(\S+:\d+)", line)
        if found:
            return found.group(1)
    sys.exit("the server did not start")


def session_of(pid):
    try:
        return os.getsid(pid)
    except OSError:
        return None


def median(loads, figure):
    return statistics.median(figure(load) for load in loads)


def progress(text):
    print(text, file=sys.stderr, flush=True)
