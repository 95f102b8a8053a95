#!/usr/bin/env python3
"""onnxd beside other servers: the same models, the same load, the same hour.

    make bench-peers                 (ARGS=--quick: one round, ARGS="--only triton,mosec")

Peers are installed into .venv/peers-NAME from benches/peers/requirements-NAME.txt, and set as one
would who reads their manuals with care; see docs/peers.md. Every server has the first processor and one
thread of ONNX Runtime, the load generator has the last. Who speaks the Open Inference Protocol gets
`onnxd bench`; mosec gets benches/peers/http_load.py. Peers take turns, the median of the rounds counts.
Prints a table and writes bench-out/peers.json and bench-out/peers.svg. A cell without a figure says why.
"""

import argparse
import array
import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from process import (
    BENCH,
    ONNXD,
    PATIENCE,
    ROOT,
    SERVER,
    Floor,
    LoadFailed,
    Process,
    Server,
    own_bench,
    pinned,
    progress,
)

HERE = ROOT / "benches" / "peers"
OUT = ROOT / "bench-out"
RUNTIME = ROOT / "target" / "release" / "onnxruntime"
DEADLINE_MS = 50
# A request of magika that has waited so long cannot be in time any more, as its run takes 6 ms or,
# on a busy machine, 10; nor can one that finds so many before it.
LONGEST_WAITS_MS, LONGEST_QUEUE = (40, 30), 6
# Beyond the capacity by this.
FACTOR = 2


class Model:
    """`width` numbers come in, `answer` numbers go out, a row each."""

    def __init__(self, name, folder, tensors, load, callers, max_batch_size):
        self.name, self.file, self.tensors = name, folder / "1" / "model.onnx", tensors
        self.http_load, self.callers, self.max_batch_size = load, callers, max_batch_size


MODELS = {
    model.name: model
    for model in (
        Model(
            "tiny",
            ROOT / "tests" / "data" / "models" / "mlp_tiny",
            [("x", "FP32", 64), ("y", "FP32", 10)],
            ["--floats", 64],
            callers=64,
            max_batch_size=64,
        ),
        Model(
            "rank",
            OUT / "models" / "mlp_rank",
            [("x", "FP32", 256), ("y", "FP32", 1)],
            ["--floats", 256],
            callers=64,
            max_batch_size=64,
        ),
        # A batch takes as long as its rows by themselves: a careful operator makes none.
        Model(
            "magika",
            ROOT / "models" / "magika",
            [("bytes", "INT32", 2048), ("target_label", "FP32", 214)],
            ["--ints", 2048],
            callers=16,
            max_batch_size=1,
        ),
    )
}


class Peer:
    """A server that can be started with a model."""

    name = None
    settings = ""
    # Bounds of the queue to try beyond the capacity, as (milliseconds, requests); the best counts.
    bounds = ((None, None),)

    def __init__(self):
        self.venv = ROOT / ".venv" / f"peers-{self.name}"
        self.python = self.venv / "bin" / "python"
        self.packages = next((self.venv / "lib").glob("python*/site-packages"), None)

    def install(self):
        """Into an environment of its own, unless it is there."""
        wanted = HERE / f"requirements-{self.name}.txt"
        digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
        mark = self.venv / "installed"
        if not mark.exists() or mark.read_text() != digest:
            progress(f"{self.name}: installing")
            pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            for command in (
                [sys.executable, "-m", "venv", "--clear", self.venv],
                [*pip, "--requirement", wanted],
            ):
                done = subprocess.run([*map(str, command)], capture_output=True, text=True)
                if done.returncode:
                    raise LoadFailed(f"not installed: {last_line(done.stderr)}")
            mark.write_text(digest)
        self.packages = next((self.venv / "lib").glob("python*/site-packages"))

    def version(self):
        lines = (HERE / f"requirements-{self.name}.txt").read_text().splitlines()
        return next(line for line in lines if not line.startswith("#")).replace("==", " ")

    def size_mb(self):
        """What was installed, ONNX Runtime and numpy included, without Python and its installer."""
        own = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
        files = [
            path
            for path in self.packages.rglob("*")
            if path.is_file()
            and not path.is_symlink()
            and "__pycache__" not in path.parts
            and not path.relative_to(self.packages).parts[0].startswith(own)
        ]
        return sum(path.stat().st_size for path in files) / 1e6

    def environment(self, **more):
        paths = os.pathsep.join(map(str, (HERE, self.packages)))
        quiet = {"ORT_DISABLE_TELEMETRY": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        return {**os.environ, **quiet, "PYTHONPATH": paths, **more}

    def start(self, model, folder, bound=(None, None)):
        """A running server, perhaps not ready yet."""
        raise NotImplementedError

    def serve(self, command, model, port, **environment):
        log = OUT / f"peers-{self.name}.log"
        options = {"env": self.environment(**environment), "stdout": subprocess.DEVNULL}
        server = Process(command, SERVER, log, **options)
        server.model, server.address = model, f"127.0.0.1:{port}"
        return server

    def load(self, server, *flags):
        command = [BENCH, "bench", server.model.name, "--addr", server.address, "--json", *flags]
        return server.measured(command)

    def answer(self, server):
        """To a row of nothing but ones."""
        ones = f"{server.model.tensors[0][0]}=1"
        command = [ONNXD, "infer", server.model.name, "--addr", server.address, "--input", ones]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise LoadFailed(last_line(done.stderr))
        return [float(word) for word in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", done.stdout)]


class Onnxd(Peer):
    name = "onnxd"
    settings = "as it comes"

    def install(self):
        pass

    def version(self):
        return subprocess.run([ONNXD, "--version"], capture_output=True, text=True).stdout.strip()

    def size_mb(self):
        """As it is shipped, without symbols, and the library beside it."""
        with tempfile.NamedTemporaryFile() as stripped:
            subprocess.run(["strip", "-o", stripped.name, ONNXD], check=True)
            size = os.stat(stripped.name).st_size
        return (size + sum(path.stat().st_size for path in RUNTIME.glob("*.so*"))) / 1e6

    def environment(self, **more):
        return {**os.environ, **more}

    def start(self, model, folder, bound=(None, None)):
        place_model(model, folder)
        ports = free_ports(3)
        flags = [
            f"--{kind}-addr=127.0.0.1:{port}"
            for kind, port in zip(("grpc", "http", "admin"), ports)
        ]
        return self.serve([ONNXD, "serve", folder, *flags, "--log", "error"], model, ports[0])


class Triton(Peer):
    """The server's binary comes with the Python back end alone."""

    name = "triton"
    settings = "Python back end with ONNX Runtime inside; dynamic batching; the best queue policy"
    bounds = ((None, None), *((wait, None) for wait in LONGEST_WAITS_MS), (40, LONGEST_QUEUE))

    def start(self, model, folder, bound=(None, None)):
        home = self.packages / "pytriton" / "tritonserver"
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.exists():
            raise LoadFailed(f"no Python back end for Python {version}")
        backend = folder / "backends" / "python"
        backend.mkdir(parents=True)
        for path in [*(home / "backends" / "python").glob("*.*"), stub]:
            (backend / path.name).symlink_to(path)
        repository = folder / "repository"
        place_model(model, repository)
        target = repository / model.name
        (target / "1" / "model.py").symlink_to(HERE / "triton_model.py")
        (target / "1" / "session.py").symlink_to(HERE / "session.py")
        (target / "config.pbtxt").write_text(self.config(model, bound))
        ports = free_ports(3)
        command = [home / "bin" / "tritonserver", "--model-repository", repository]
        command += ["--backend-directory", backend.parent, "--log-info", "false"]
        # There is no GPU, and looking for one takes seconds.
        command += ["--allow-gpu-metrics", "false", "--pinned-memory-pool-byte-size", 0]
        for kind, port in zip(("grpc", "http", "metrics"), ports):
            command += [f"--{kind}-address", "127.0.0.1", f"--{kind}-port", port]
        # The back end takes the packages of the first Python on this path.
        path = f"{self.venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return self.serve(command, model, ports[0], PATH=path)

    @staticmethod
    def config(model, bound):
        (name, dtype, width), (answer, answer_dtype, answer_width) = model.tensors
        wait_ms, most = bound
        policy = f"timeout_action: REJECT default_timeout_microseconds: {(wait_ms or 0) * 1000}"
        policy += f" max_queue_size: {most or 0}"
        return f"""
            backend: "python"
            max_batch_size: {model.max_batch_size}
            input [ {{ name: "{name}" data_type: TYPE_{dtype} dims: [ {width} ] }} ]
            output [ {{ name: "{answer}" data_type: TYPE_{answer_dtype} dims: [ {answer_width} ] }} ]
            instance_group [ {{ count: 1 kind: KIND_CPU }} ]
            dynamic_batching {{ default_queue_policy {{ {policy} }} }}
        """


class Mosec(Peer):
    name = "mosec"
    settings = "batches of 64, waits 1 ms for them; the best timeout and capacity; rows as bytes"
    bounds = ((50, None), *((wait, None) for wait in LONGEST_WAITS_MS), (40, LONGEST_QUEUE))

    def start(self, model, folder, bound=(None, None)):
        (port,) = free_ports(1)
        settings = {
            "MODEL_FILE": str(model.file),
            "MAX_BATCH_SIZE": str(model.max_batch_size),
            "MAX_WAIT_MS": "1",
            "MOSEC_ADDRESS": "127.0.0.1",
            "MOSEC_PORT": str(port),
            "MOSEC_LOG_LEVEL": "error",
            "MOSEC_PATH": str(folder / "sockets"),
        }
        for key, value in zip(("MOSEC_TIMEOUT", "MOSEC_CAPACITY"), bound):
            if value:
                settings[key] = str(value)
        return self.serve([self.python, HERE / "mosec_server.py"], model, port, **settings)

    def load(self, server, *flags):
        flags = list(flags)
        if "--connections" in flags:
            del flags[(at := flags.index("--connections")) : at + 2]
        command = [sys.executable, HERE / "http_load.py", server.address, *server.model.http_load]
        return server.measured([*command, *flags])

    def answer(self, server):
        (_, dtype, width) = server.model.tensors[0]
        row = array.array("f" if dtype == "FP32" else "i", [1] * width).tobytes()
        request = urllib.request.Request(f"http://{server.address}/inference", row)
        with urllib.request.urlopen(request) as answered:
            return list(array.array("f", answered.read()))


class MlServer(Peer):
    name = "mlserver"
    settings = "own runtime in the server's process; adaptive batching, 1 ms; no debug"

    def start(self, model, folder, bound=(None, None)):
        grpc, http, metrics = free_ports(3)
        server = {
            "debug": False,
            "host": "127.0.0.1",
            "grpc_port": grpc,
            "http_port": http,
            "metrics_port": metrics,
            "metrics_dir": str(folder),
            "parallel_workers": 0,
        }
        tensors = [
            {"name": name, "datatype": dtype, "shape": [-1, width]}
            for name, dtype, width in model.tensors
        ]
        served = {
            "name": model.name,
            "implementation": "mlserver_runtime.Onnx",
            "inputs": tensors[:1],
            "outputs": tensors[1:],
            "parameters": {"uri": str(model.file)},
        }
        if model.max_batch_size > 1:
            served |= {"max_batch_size": model.max_batch_size, "max_batch_time": 0.001}
        (folder / "settings.json").write_text(json.dumps(server))
        (folder / "model-settings.json").write_text(json.dumps(served))
        return self.serve([self.venv / "bin" / "mlserver", "start", folder], model, grpc)


class KServe(Peer):
    name = "kserve"
    settings = "own model class; the SDK has no batching; logging of latencies off"

    def start(self, model, folder, bound=(None, None)):
        grpc, http = free_ports(2)
        command = [self.python, HERE / "kserve_server.py", model.name, model.file]
        return self.serve([*command, "--grpc_port", grpc, "--http_port", http], model, grpc)


PEERS = [Onnxd, Triton, Mosec, MlServer, KServe]


def place_model(model, repository):
    folder = repository / model.name / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").symlink_to(model.file)


def free_ports(count):
    """Ports that are free now; servers cannot tell theirs before they are up."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def last_line(text):
    return (text.strip().splitlines() or ["no reason given"])[-1]


def failed(load):
    return sum(count for code, count in load["codes"].items() if code != "0")


@contextlib.contextmanager
def running(peer, model, bound=(None, None)):
    """A server that has answered, and the seconds from its start until then."""
    with tempfile.TemporaryDirectory() as folder:
        with peer.start(model, pathlib.Path(folder), bound) as server:
            started_s = first_answer(peer, server)
            if not same(right_answer(model), peer.answer(server)):
                raise LoadFailed(f"{model.name}: wrong answer")
            yield server, started_s


@functools.cache
def right_answer(model):
    """That of onnxd, which tests hold against others."""
    with tempfile.TemporaryDirectory() as folder:
        own = Onnxd()
        with own.start(model, pathlib.Path(folder)) as server:
            first_answer(own, server)
            return own.answer(server)


def same(one, other):
    """The batch and the build may round differently."""
    return len(one) == len(other) > 0 and all(
        abs(left - right) <= 1e-4 * max(1, abs(left)) for left, right in zip(one, other)
    )


def first_answer(peer, server):
    host, port = server.address.split(":")
    problem = "no connection"
    while time.monotonic() - server.begun_at < PATIENCE:
        if server.process.poll() is not None:
            log = (OUT / f"peers-{peer.name}.log").read_text()
            raise LoadFailed(f"ended at its start: {last_line(log)}")
        try:
            # A client of its own for every try would be slower than the server that it waits for.
            socket.create_connection((host, int(port))).close()
            load = peer.load(server, "--concurrency", 1, "--duration", 0.001)
            if load["answers"]:
                return time.monotonic() - server.begun_at
            problem = f"codes {load['codes']}"
        except (OSError, LoadFailed) as error:
            problem = str(error)
        time.sleep(0.002)
    raise LoadFailed(f"no answer after {PATIENCE} s: {last_line(problem)}")


def measure(peer, options):
    """One round: the loads of a peer by name; where one fails, the reason."""
    found, seconds = {}, ["--duration", options.seconds]

    def bear(server, name, *flags, may_fail=False):
        load = peer.load(server, *flags, *seconds)
        if failed(load) and not may_fail:
            raise LoadFailed(f"{name}: not answered {load['codes']}")
        found[name] = load
        return load

    def idle_and_busy(model, server):
        peer.load(server, "--concurrency", 16, "--duration", 0.5)
        bear(server, f"{model} 1", "--concurrency", 1)
        for callers in (64,) if model == "tiny" else (16, 64, 256):
            bear(server, f"{model} {callers}", "--concurrency", callers)

    def tiny():
        with running(peer, MODELS["tiny"]) as (server, _):
            idle_and_busy("tiny", server)

    def rank():
        with running(peer, MODELS["rank"]) as (server, started_s):
            found["start"] = started_s
            idle_and_busy("rank", server)

    def magika():
        with running(peer, MODELS["magika"]) as (server, _):
            peer.load(server, "--concurrency", 16, "--duration", 0.5)
            capacity = bear(server, "magika 16", "--concurrency", 16)["answers_per_second"]
        flags = ["--rate", capacity * FACTOR, "--timeout-ms", DEADLINE_MS, "--connections", 4]
        tried = []
        for bound in peer.bounds:
            with running(peer, MODELS["magika"], bound) as (server, _):
                peer.load(server, "--concurrency", 4, "--duration", 0.5)
                load = bear(server, "magika over", *flags, may_fail=True)
                tried.append({**load, "bound": bound})
        found["magika over"] = max(tried, key=lambda load: load["answers"] - load["late"])

    for part in (tiny, rank, magika):
        try:
            part()
        except LoadFailed as problem:
            found.setdefault("problems", {})[part.__name__] = last_line(str(problem))
    return found


def floor(options):
    """The floor at the loads of tiny, whose messages it takes from a server that can describe it."""
    found = {}
    with Server(MODELS["tiny"].file) as describer, Floor(describer.address) as smallest:
        for callers in (64, 1):
            flags = ["--concurrency", callers, "--duration", options.seconds]
            found[f"floor {callers}"] = smallest.load("model", *flags)
    return found


def ceiling(model):
    """Microseconds of a run by rows, without a server."""
    command = pinned(SERVER, [own_bench(), "ceiling", model.file, RUNTIME])
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    return json.loads(
        subprocess.run(command, capture_output=True, env=environment, check=True).stdout
    )


def cpu(load):
    return load["cpu_us"]


def p50(load):
    return load["latency_us"]["p50"]


def efficiency(found, base):
    row = min(micros / int(rows) for rows, micros in base["rank"].items())
    loads = (found[f"rank {callers}"] for callers in (16, 64, 256))
    return max(100 * (cpu(base["floor 64"]) + row) / cpu(load) for load in loads)


def idle(model):
    def figure(found, base):
        return p50(found[f"{model} 1"]) / (p50(base["floor 1"]) + base[model]["1"])

    return figure


def goodput(found, _):
    load, capacity = found["magika over"], found["magika 16"]["answers_per_second"]
    return 100 * (load["answers"] - load["late"]) / load["seconds"] / capacity


# Name, unit, whether less is better, the part that measures it, the figure of a round.
ROWS = [
    (
        "CPU per request, tiny, 64 callers",
        "us",
        True,
        "tiny",
        lambda found, _: cpu(found["tiny 64"]),
    ),
    (
        "the same over the floor",
        "x",
        True,
        "tiny",
        lambda found, base: cpu(found["tiny 64"]) / cpu(base["floor 64"]),
    ),
    ("efficiency, rank, best load", "%", False, "rank", efficiency),
    (
        "rate, rank, best load",
        "/s",
        False,
        "rank",
        lambda found, _: max(found[f"rank {n}"]["answers_per_second"] for n in (16, 64, 256)),
    ),
    ("idle p50, tiny", "us", True, "tiny", lambda found, _: p50(found["tiny 1"])),
    ("idle p50 over floor and run, tiny", "x", True, "tiny", idle("tiny")),
    ("idle p50, rank", "us", True, "rank", lambda found, _: p50(found["rank 1"])),
    ("idle p50 over floor and run, rank", "x", True, "rank", idle("rank")),
    ("goodput at 2x, 50 ms, magika, by capacity", "%", False, "magika", goodput),
    ("start to first answer, rank", "s", True, "rank", lambda found, _: found["start"]),
    (
        "memory after 256 callers, rank",
        "MB",
        True,
        "rank",
        lambda found, _: found["rank 256"]["rss_mb"],
    ),
]
SIZE = ("size on disk, ONNX Runtime included", "MB", True)


def tabled(rounds, bases, problems, sizes):
    """Rows with a cell for each peer: the median, or the reason why there is none."""
    for name, unit, less, part, figure in ROWS:
        cells = {}
        for peer, loads in rounds.items():
            values = [
                figure(found, base)
                for found, base in zip(loads, bases)
                if part not in found.get("problems", {})
            ]
            reasons = [each["problems"][part] for each in loads if part in each.get("problems", {})]
            if values:
                cells[peer] = {"figure": statistics.median(values), "rounds": values}
            else:
                cells[peer] = {"reason": problems.get(peer) or (reasons or ["not measured"])[0]}
        yield {"row": name, "unit": unit, "less_is_better": less, "cells": cells}
    name, unit, less = SIZE
    cells = {
        peer: {"figure": sizes[peer]} if peer in sizes else {"reason": problems[peer]}
        for peer in rounds
    }
    yield {"row": name, "unit": unit, "less_is_better": less, "cells": cells}


def number(value):
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def told(rows, versions):
    notes = []
    print(f"\n{'':44}" + "".join(f"{peer:>12}" for peer in versions))
    for row in rows:
        line = f"{row['row']:40} {row['unit']:3}"
        for peer, cell in row["cells"].items():
            if "figure" in cell:
                line += f"{number(cell['figure']):>12}"
            else:
                if (note := f"{peer}: {cell['reason']}") not in notes:
                    notes.append(note)
                line += f"{f'[{notes.index(note) + 1}]':>12}"
        print(line)
    for place, note in enumerate(notes, 1):
        print(f"[{place}] {note}")
    print()
    for version, settings in versions.values():
        print(f"{version}: {settings}")


def drawn(rows, path):
    """A panel for each row, a bar for each peer; the first is onnxd."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plot

    # The same figures make the same file, and words stay words.
    plot.rcParams.update({"svg.hashsalt": "peers", "svg.fonttype": "none", "font.size": 8})
    columns = 3
    lines = -(-len(rows) // columns)
    figure, panels = plot.subplots(lines, columns, figsize=(11, 1.7 * lines), squeeze=False)
    for panel in panels.flat[len(rows) :]:
        panel.set_visible(False)
    for panel, row in zip(panels.flat, rows):
        names = list(row["cells"])[::-1]
        values = [row["cells"][name].get("figure", 0) for name in names]
        colors = ["#0b6e99" if name == "onnxd" else "#b8b8b8" for name in names]
        texts = [number(value) if value else "-" for value in values]
        panel.bar_label(panel.barh(names, values, color=colors), texts, padding=3)
        hint = "less is better" if row["less_is_better"] else "more is better"
        panel.set_title(f"{row['row']}, {row['unit']}\n{hint}", fontsize=8)
        panel.spines[["top", "right", "bottom"]].set_visible(False)
        panel.set_xticks([])
        panel.margins(x=0.2)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of short loads")
    parser.add_argument("--only", help="some of triton,mosec,mlserver,kserve, beside onnxd")
    options = parser.parse_args()
    options.rounds, options.seconds = (1, 1) if options.quick else (3, 2)
    peers = [kind() for kind in PEERS]
    if options.only:
        wanted = ["onnxd", *options.only.split(",")]
        if unknown := set(wanted) - {peer.name for peer in peers}:
            parser.error(f"--only: no such peer: {', '.join(sorted(unknown))}")
        peers = [peer for peer in peers if peer.name in wanted]
    begun_at = time.monotonic()
    OUT.mkdir(exist_ok=True)
    rounds = {peer.name: [] for peer in peers}
    sizes, problems, bases = {}, {}, []
    for peer in peers:
        try:
            peer.install()
            sizes[peer.name] = peer.size_mb()
        except LoadFailed as problem:
            problems[peer.name] = str(problem)
    for turn in range(options.rounds):
        of = f"round {turn + 1} of {options.rounds}"
        progress(f"floor and ceiling, {of}")
        bases.append(
            {**floor(options), **{name: ceiling(MODELS[name]) for name in ("tiny", "rank")}}
        )
        for peer in peers:
            if peer.name not in problems:
                progress(f"{peer.name}, {of}")
                rounds[peer.name].append(measure(peer, options))
                for part, reason in rounds[peer.name][-1].get("problems", {}).items():
                    progress(f"{peer.name}, {part}: {reason}")
    rows = list(tabled(rounds, bases, problems, sizes))
    versions = {peer.name: (peer.version(), peer.settings) for peer in peers}
    told(rows, versions)
    loads = [load for each in rounds.values() for found in each for load in found.values()]
    shares = [load["others_share"] for load in loads if isinstance(load, dict) and "codes" in load]
    others = statistics.median(shares)
    print(f"\nother processes: {100 * others:.0f} % of a core")
    figures = {"rows": rows, "versions": versions, "loads": rounds, "limits": bases}
    figures["others_share_of_core"] = others
    (OUT / "peers.json").write_text(json.dumps(figures, indent=1))
    drawn(rows, OUT / "peers.svg")
    progress(f"{time.monotonic() - begun_at:.0f} s; written: bench-out/peers.json, peers.svg")


if __name__ == "__main__":
    main()
