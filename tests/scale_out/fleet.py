"""Several servers on ports that they keep over restarts."""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "data" / "models"
BINARY = os.environ.get("ONNXD_BIN", str(ROOT / "target" / "release" / "onnxd"))
# Longest wait for anything, in seconds.
PATIENCE = 60.0


def wait_until(condition, what, patience=PATIENCE):
    end = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience} s for: {what}")
        time.sleep(0.01)
    return value


def free_ports(count):
    """Ports that nobody has now; asked for together so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def repository(folder, version):
    """Models of a release: their answers tell which release gave them."""
    shutil.copytree(MODELS / "loop_busy", folder / "loop_busy")
    shutil.copytree(MODELS / "two_versions" / str(version), folder / "two_versions" / str(version))
    return folder


class Server:
    """One place of a fleet: an address, and a process that comes and goes, on a processor of its
    own if one is given."""

    def __init__(self, log, flags=(), processor=None):
        ports = free_ports(3)
        self.grpc, self.http, self.admin = (f"127.0.0.1:{port}" for port in ports)
        self.log_path = log
        self.flags = flags
        self.pinned = [] if processor is None else ["taskset", "--cpu-list", str(processor)]
        self.process = None

    def start(self, models, *flags):
        command = [*self.pinned, BINARY, "serve", str(models), "--strict", "--intra-op-threads", "1"]
        for port in ("grpc", "http", "admin"):
            command += [f"--{port}-addr", getattr(self, port)]
        command += ["--log-format", "text", *self.flags, *flags]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ONNXD_")}
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
            )
        wait_until(self.is_ready, f"{self.grpc} is ready")

    def is_ready(self):
        assert self.process.poll() is None, self.log_path.read_text()
        try:
            with urllib.request.urlopen(f"http://{self.admin}/readyz", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def answered(self):
        """Requests that this process has answered."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=PATIENCE) as answer:
            text = answer.read().decode()
        found = re.findall(r'^onnxd_requests_total\{.*outcome="ok"\} (\d+)', text, re.MULTILINE)
        return sum(int(value) for value in found)

    def terminate(self):
        """SIGTERM, and the end that follows; everything accepted must have been answered."""
        self.process.terminate()
        code = self.process.wait(PATIENCE)
        assert code == 0, f"exit code {code}\n{self.log_path.read_text()}"
        self.process = None

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)


class Fleet:
    """`count` servers; `spare` more addresses that a rollout may take."""

    def __init__(self, folder, count, spare=0, flags=()):
        folder = pathlib.Path(folder)
        self.releases = {v: repository(folder / f"release-{v}", v) for v in (1, 2)}
        self.places = [Server(folder / f"log-{n}", flags) for n in range(count + spare)]
        self.servers = self.places[:count]
        self.spare = self.places[count:]

    def addresses(self):
        return [place.grpc for place in self.places]

    def start(self):
        for server in self.servers:
            server.start(self.releases[1])

    def restart(self, index, calls):
        """Stops and starts a server, and waits until callers have come back to it."""
        server = self.servers[index]
        server.terminate()
        server.start(self.releases[1])
        wait_until(lambda: calls.check() and server.answered() > 0, f"callers at {server.grpc}")

    def roll_out(self, calls):
        """Each server is replaced by one of the new release elsewhere; the old one goes when
        callers have found the new one."""
        for index, old in enumerate(self.servers):
            new = self.spare.pop()
            new.start(self.releases[2])
            wait_until(lambda: calls.check() and new.answered() > 0, f"callers at {new.grpc}")
            old.terminate()
            self.servers[index] = new
            self.spare.append(old)

    def stop(self):
        for place in self.places:
            place.kill()
