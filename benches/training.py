#!/usr/bin/env python3
"""Builds the server by what a training run shows: target/trained/onnxd, with ONNX Runtime beside it.

    make release

The compiler then knows which paths requests take: it lays them out side by side, inlines along them,
and keeps all else small. Small requests cost a fifth to a quarter less for it. All crates are optimised as
one and addresses are packed: a tenth less to load. Built twice, first with
counters in every function; the loads between are those of `onnxd bench` and of a REST client, on the
models of `models/`. Source: rustc, "Profile-guided Optimization".

The server has the first processor, the load the last, as in the benches; then the server has all.
"""

import http.client
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

import process
from process import ROOT, progress

COUNTING = ROOT / "target" / "training"
TRAINED = ROOT / "target" / "trained"
PROFILE = COUNTING / "all.profdata"
MODEL = "silero-vad"
FRAME = ["--shape", "input=1,576"]
# Seconds of each load.
SECONDS = 4
# The first glibc whose loader unpacks addresses: older ones refuse such programs.
UNPACKS = (2, 36)
# What is not among the most used code of the training run is compiled small, and what it never reached is
# hardly ever inlined.
SMALL = ["pgso-lwss-only=false", "inline-cold-callsite-threshold=5", "inlinecold-threshold=5"]


def main():
    merge = profile_tool()
    counting = built(COUNTING, f"-Cprofile-generate={COUNTING / 'counts'}")
    process.ONNXD = process.BENCH = counting
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ["LLVM_PROFILE_FILE"] = str(COUNTING / "counts" / "%p.profraw")
    setup = [counting, "setup", "--dir", COUNTING / "onnxruntime"]
    subprocess.run(setup, check=True, stdout=sys.stderr)
    library = next((COUNTING / "onnxruntime").glob("libonnxruntime.so.*"))
    counts = []
    # One thread serves connections where there is one processor, else several do, by other code.
    for allowed in dict.fromkeys([(process.SERVER,), tuple(process.ALLOWED)]):
        processors = ",".join(map(str, allowed))
        flags = ["--runtime-library", library]
        with process.Server(ROOT / "models", *flags, processors=processors) as server:
            train(server)
        # The load generator counts, too, and is not what is to be fast.
        counts.append(COUNTING / "counts" / f"{server.process.pid}.profraw")
    subprocess.run([merge, "merge", "--output", PROFILE, *counts], check=True)
    del os.environ["LLVM_PROFILE_FILE"]
    small = [f"-Cllvm-args=-{each}" for each in SMALL]
    shutil.copy2(built(TRAINED, f"-Cprofile-use={PROFILE}", *small), TRAINED / "onnxd")
    shutil.copytree(COUNTING / "onnxruntime", TRAINED / "onnxruntime", dirs_exist_ok=True)
    progress(f"built {(TRAINED / 'onnxd').relative_to(ROOT)}")


def profile_tool():
    """The compiler's own tool for profiles: others do not read what it counts."""
    sysroot = subprocess.check_output(["rustc", "--print", "sysroot"], cwd=ROOT, text=True).strip()

    def found():
        return next(pathlib.Path(sysroot, "lib", "rustlib", host(), "bin").glob("llvm-profdata"), None)

    if found() is None:
        subprocess.run(["rustup", "component", "add", "llvm-tools"], cwd=ROOT, check=True)
    return found() or sys.exit("rustup has no llvm-profdata")


def host():
    lines = subprocess.check_output(["rustc", "-vV"], cwd=ROOT, text=True).splitlines()
    return next(line.removeprefix("host: ") for line in lines if line.startswith("host: "))


def built(folder, *flags):
    """The server, built there. A target of its own keeps the flags from the programs that build. The
    profile has to be the same both times: functions are named after it, and counts after functions.
    """
    progress(f"compiling with {flags[0].partition('=')[0]}, some minutes")
    command = ["cargo", "build", "--locked", "--bin", "onnxd", "--release"]
    command += ["--target", host(), "--target-dir", folder]
    libc, version = platform.libc_ver()
    packs = libc == "glibc" and tuple(map(int, version.split("."))) >= UNPACKS
    flags = [*flags, *(["-Clink-arg=-Wl,-z,pack-relative-relocs"] if packs else [])]
    environment = {**os.environ, "RUSTFLAGS": " ".join(flags), "CARGO_PROFILE_RELEASE_LTO": "fat"}
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, env=environment)
    return folder / host() / "release" / "onnxd"


def train(server):
    """What servers do all day: few callers and many, streams, more than can be done, REST."""
    few = ["--concurrency", 1]
    many = ["--concurrency", 64]
    load(server, MODEL, *FRAME, *few)
    capacity = load(server, MODEL, *FRAME, *many)["answers_per_second"]
    load(server, MODEL, *FRAME, *many, "--connections", 16)
    load(server, MODEL, *FRAME, *many, "--stream")
    load(server, "magika", "--concurrency", 4)
    beyond = ["--rate", 2 * capacity, "--connections", 4, "--timeout-ms", 50]
    load(server, MODEL, *FRAME, *beyond)
    load(server, MODEL, *FRAME, *beyond, "--no-cancel")
    rest(server)


def load(server, model, *flags):
    progress(f"training: {model} {' '.join(map(str, flags))}")
    return server.load(model, *flags, "--duration", SECONDS)


def rest(server):
    """Predictions over REST, as JSON and with bytes behind it, on one connection."""
    progress("training: REST")
    address = next(line.split()[-1] for line in server.process.stdout if "REST" in line)
    connection = http.client.HTTPConnection(address, timeout=process.PATIENCE)
    tokens = {"name": "bytes", "shape": [1, 2048], "datatype": "INT32"}
    binary = {"parameters": {"binary_data_size": 4 * 2048}}
    output = [{"name": "target_label", "parameters": {"binary_data": True}}]
    plain = json.dumps({"inputs": [{**tokens, "data": [1] * 2048}]}).encode()
    head = json.dumps({"inputs": [{**tokens, **binary}], "outputs": output}).encode()
    ways = [
        (plain, {}),
        (head + bytes(4 * 2048), {"Inference-Header-Content-Length": str(len(head))}),
    ]
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        for body, headers in ways:
            headers = {"Content-Type": "application/json", **headers}
            connection.request("POST", "/v2/models/magika/infer", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                sys.exit(f"REST: {answer.status} {text[:200]!r}")


if __name__ == "__main__":
    if platform.system() != "Linux":
        sys.exit("the server runs on Linux")
    main()
