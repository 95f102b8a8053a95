"""A server on ports that it keeps over restarts, and a repository that changes under it."""

import os
import pathlib
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import grpc

from certificates import Authority
from peers import free_ports

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "data" / "models"
BINARY = os.environ.get("ONNXD_BIN", str(ROOT / "target" / "release" / "onnxd"))
NAMES = ("add_i64", "gather_100", "identity_f32", "int_divide", "two_inputs")
# Longest wait for a start or an end, in seconds.
PATIENCE = 60


class Server:
    def __init__(self, folder, *flags):
        folder = pathlib.Path(folder)
        self.repository = folder / "models"
        for name in NAMES:
            shutil.copytree(MODELS / name, self.repository / name)
        self.version = 1
        shutil.copytree(MODELS / "identity_f32" / "1", self.repository / "swap" / "1")
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        self.authority = Authority()
        self.authority.write(self.secrets)
        ports = dict(zip(("grpc", "http", "admin"), free_ports(3)))
        self.addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        self.log = open(folder / "log", "ab")
        self.command = [BINARY, "serve", str(self.repository)]
        for name, address in self.addresses.items():
            self.command += [f"--{name}-addr", address]
        self.command += ["--tls-cert", str(self.secrets / "cert.pem")]
        self.command += ["--tls-key", str(self.secrets / "key.pem"), "--tls-reload-ms", "200"]
        self.command += ["--model-control", "poll", "--poll-ms", "200", "--log", "warn"]
        self.command += ["--log-format", "text", "--drain-grace-ms", "10000", *flags]
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.DEVNULL, stderr=self.log, stdin=subprocess.DEVNULL
        )
        end = time.monotonic() + PATIENCE
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the server did not start: {self.process.poll()}")
            time.sleep(0.02)

    def is_ready(self):
        try:
            url = f"http://{self.addresses['admin']}/readyz"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    @property
    def pid(self):
        return self.process.pid

    def terminate(self):
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def kill(self):
        self.process.kill()
        return self.process.wait(PATIENCE)

    def connect(self):
        """A channel of its own to the data port."""
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.ssl_target_name_override", "localhost"),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 500),
            # What is tried again by the library is not seen by the ledger.
            ("grpc.enable_retries", 0),
        ]
        credentials = grpc.ssl_channel_credentials(self.authority.pem())
        return grpc.aio.secure_channel(self.addresses["grpc"], credentials, options)

    def swap_model(self):
        """A new version, put into its place at once; the one before the last goes."""
        swap = self.repository / "swap"
        self.version += 1
        draft = swap.parent.parent / "draft"
        shutil.copytree(MODELS / "identity_f32" / "1", draft)
        os.replace(draft, swap / str(self.version))
        for each in swap.iterdir():
            if each.name.isdigit() and int(each.name) < self.version - 1:
                shutil.rmtree(each)

    def break_model(self):
        """A new version that cannot be loaded; the next swap puts it right."""
        swap = self.repository / "swap"
        self.version += 1
        draft = swap.parent.parent / "draft"
        draft.mkdir()
        whole = (MODELS / "identity_f32" / "1" / "model.onnx").read_bytes()
        (draft / "model.onnx").write_bytes(whole[: len(whole) // 2])
        os.replace(draft, swap / str(self.version))

    def swap_certificate(self):
        self.authority.write(self.secrets)
