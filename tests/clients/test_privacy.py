"""ONNX Runtime's library must not phone home: seen from outside, system call by system call."""

import os
import re
import shutil
import subprocess

import numpy as np
import tritonclient.grpc as triton

import harness

WRITING = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")
OPEN = re.compile(r'(?:open|openat|creat)\((?:AT_FDCWD, )?"([^"]+)"(?:, ([A-Z_|0-9]+))?')
CONNECT = re.compile(r"connect\(\d+, \{sa_family=(AF_\w+)(.*)")


def is_loopback(rest):
    return '"127.' in rest or '"::1"' in rest


def test_nothing_connects_outside_and_nothing_is_written(tmp_path):
    strace = shutil.which("strace")
    assert strace, "run.sh installs strace"
    trace, home = tmp_path / "trace", tmp_path / "home"
    home.mkdir()
    # -D: the server stays our own child, so that signals reach it.
    command = [strace, "-D", "-f", "-q", "-e", "trace=network,open,openat,creat,mkdir,mkdirat"]
    command += ["-o", str(trace), harness.BINARY, "serve", str(harness.TEST_MODELS)]
    for port in ("grpc", "http", "admin"):
        command += [f"--{port}-addr", "127.0.0.1:0"]
    # As a user has it: nobody has switched anything off.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        for line in server.stdout:
            if line.split()[:1] == ["gRPC"]:
                address = line.split()[1]
                break
        else:
            raise AssertionError("no banner")
        with triton.InferenceServerClient(address) as client:
            tensor = triton.InferInput("x", [1, 2], "FP32")
            tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
            client.infer("identity_f32", [tensor])
    finally:
        server.terminate()
        server.wait(timeout=harness.PATIENCE)
    ended = re.compile(rf"^{server.pid} +\+\+\+ exited with 0", re.MULTILINE)
    harness.wait_until(lambda: ended.search(trace.read_text()), "the end of the trace")
    lines = trace.read_text().splitlines()
    assert any("libonnxruntime.so" in line for line in lines), "the trace has missed it all"
    connects = [match.groups() for line in lines if (match := CONNECT.search(line))]
    outside = [each for each in connects if each[0] != "AF_UNIX" and not is_loopback(each[1])]
    assert outside == []
    written = [
        path
        for line in lines
        if (match := OPEN.search(line)) and match[2] and WRITING.search(match[2])
        for path in [match[1]]
        if not path.startswith(("/dev/", "/proc/"))
    ]
    assert written == []
    assert [line for line in lines if "mkdir" in line and "= 0" in line] == []
    assert list(home.iterdir()) == []
