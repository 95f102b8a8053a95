"""A server as a process of its own, and waiting with an end."""

import os
import queue
import shutil
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
MODELS = ROOT / "models"
TEST_MODELS = ROOT / "tests" / "data" / "models"
BINARY = os.environ["ONNXD_BIN"]

# How Debian names the folder of this machine's libraries.
MULTIARCH = f"{os.uname().machine}-linux-gnu"

# Longest wait for anything, in seconds. Reached only when something is broken.
PATIENCE = 60.0


def wait_until(condition, what, patience=PATIENCE):
    """Returns the first true value of `condition`; fails when it takes too long."""
    end = time.monotonic() + patience
    tick = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience} s for: {what}")
        tick.wait(0.005)


def copy_models(folder, *names, source=TEST_MODELS):
    """Copies models into the repository `folder`."""
    for name in names:
        if not (source / name).is_dir():
            raise AssertionError(f"{source / name} is missing")
        shutil.copytree(source / name, Path(folder) / name)


class Server:
    """`onnxd serve` on ports that the system chose."""

    def __init__(
        self,
        repository,
        *flags,
        log="warn",
        log_format="text",
        grpc="127.0.0.1:0",
        environment=None,
    ):
        command = [BINARY, "serve", str(repository), "--grpc-addr", grpc]
        for port in ("http", "admin"):
            command += [f"--{port}-addr", "127.0.0.1:0"]
        command += ["--log", log, "--log-format", log_format, *flags]
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith("ONNXD_")
        }
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**inherited, **(environment or {})},
        )
        self.log = []
        self._lines = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._lines.put)),
            threading.Thread(target=self._read, args=(self.process.stderr, self.log.append)),
        ]
        for reader in self._readers:
            reader.start()
        self.banner = []
        try:
            self.grpc = self._address("gRPC")
            self.http = self._address("REST")
            self.admin = self._address("admin")
        except BaseException:
            self.kill()
            raise

    @staticmethod
    def _read(stream, put):
        for line in stream:
            put(line.rstrip("\n"))
        put(None)

    def _address(self, port):
        end = time.monotonic() + PATIENCE
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"no {port} port: {self.banner} {self.log}")
            self.banner.append(line)
            words = line.split()
            if words[:1] == [port]:
                return words[1]

    def metric(self, name, **labels):
        """Sum of the samples of a metric that have these labels."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=PATIENCE) as answer:
            text = answer.read().decode()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        total, found = 0.0, False
        for line in text.splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(each in series for each in wanted):
                total, found = total + float(value), True
        assert found, f"no metric {name} {labels}"
        return total

    def terminate(self):
        self.process.terminate()

    def wait(self):
        """Waits for the end of the process; its exit code."""
        code = self.process.wait(timeout=PATIENCE)
        for reader in self._readers:
            reader.join(timeout=PATIENCE)
        return code

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def stop(self):
        """Stops a server that has nothing to do: at once and with success."""
        self.terminate()
        try:
            code = self.wait()
        finally:
            self.kill()
        assert code == 0, f"exit code {code}: {self.log}"


def run(*command, patience=PATIENCE):
    """Runs a command line tool to its end."""
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=patience
    )


def onnxd(*words):
    """Runs a subcommand of the server's binary."""
    return run(BINARY, *words)
