#!/usr/bin/env python3
"""How cost grows as work grows: callers, connections, bytes, models, instances, queues, rows, streams.

    make bench-scaling               (ARGS=--quick: few points once, ARGS="--only rows,streams")

Server on the first processor, load generator on the last. The points of a curve take turns, and the
median of the rounds counts. What a unit of work costs must not rise along a curve by more than a
stated factor over the cheapest point before; a curve that bends upward is flagged. Where the network
itself may become dearer, the smallest server bears the same load, and what counts is the cost above
its. Processor time stands rather still on a busy machine; rates and latencies do not, and are not
judged. Prints a table and writes bench-out/scaling.json and bench-out/scaling.svg. Needs matplotlib.
"""

import argparse
import contextlib
import json
import pathlib
import socket
import sys
import tempfile
import time

from process import PROCESSORS, ROOT, Floor, LoadFailed, Server, median, progress

TINY = ROOT / "tests" / "data" / "models" / "mlp_tiny"
IDENTITY = ROOT / "tests" / "data" / "models" / "identity_f32"
MAGIKA = ROOT / "models" / "magika"
# Calls that one connection may carry.
STREAMS = 200
# Callers that keep a server busy.
BUSY = ["--concurrency", 64]
# First words of an HTTP/2 client: the preface and empty settings.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
LONG = ["--timeout-ms", 300_000]


class Curve:
    """Points along one kind of work. `measure` gives the load of a point."""

    def __init__(self, name, title, points, measure, *, factor=1.5, per=1, about=""):
        self.name, self.title, self.points, self.measure = name, title, points, measure
        self.factor, self.about = factor, about
        # Work in an answer, or a function of the point that tells it.
        self.per = per if callable(per) else lambda _: per
        self.loads = {point: [] for point in points}
        # The same loads on the floor, where it bears them.
        self.floor = {point: [] for point in points}

    def figures(self):
        """Medians of the rounds, by point."""
        return [self.at(point, loads) for point, loads in self.loads.items() if loads]

    def at(self, point, loads):
        figures = {
            "point": point,
            "cpu_us": median(loads, lambda load: load["cpu_us"]),
            "rate": median(loads, lambda load: load["answers_per_second"]),
            "p50_us": median(loads, lambda load: load["latency_us"]["p50"]),
            "p99_us": median(loads, lambda load: load["latency_us"]["p99"]),
            "rss_mb": median(loads, lambda load: load["rss_mb"]),
            "failed": sum(failed(load) for load in loads),
        }
        own = figures["cpu_us"]
        if self.floor[point]:
            figures["floor_cpu_us"] = median(self.floor[point], lambda load: load["cpu_us"])
            own -= figures["floor_cpu_us"]
        figures["cpu_us_per_unit"] = own / self.per(point)
        if "started_s" in loads[0]:
            figures["started_s"] = median(loads, lambda load: load["started_s"])
        return figures

    def checks(self):
        """What each point costs by the cheapest before it; only the worst is told."""
        found = self.figures()
        costs = [each["cpu_us_per_unit"] for each in found]
        growths = [cost / min(costs[: place + 1]) for place, cost in enumerate(costs)]
        worst = max(range(len(found)), key=growths.__getitem__)
        lost = sum(each["failed"] for each in found)
        where = f"at {short(found[worst]['point'])}"
        cost = "CPU of a unit above the floor" if "floor_cpu_us" in found[0] else "CPU of a unit"
        yield check(f"{self.name}: {cost}, over its lowest", growths[worst], self.factor, where)
        yield check(f"{self.name}: requests not answered", lost, 0)


def check(name, figure, bound, where=""):
    return {"check": name, "figure": figure, "bound": bound, "met": figure <= bound, "where": where}


def failed(load):
    return sum(count for code, count in load["codes"].items() if code != "0")


def short(number):
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)


def connections(calls):
    return ["--connections", -(-calls // STREAMS)]


@contextlib.contextmanager
def repository(model, copies=1, settings=""):
    """A repository with so many copies of a model, m000 and on."""
    with tempfile.TemporaryDirectory() as folder:
        for index in range(copies):
            target = pathlib.Path(folder) / f"m{index:03}"
            target.mkdir()
            (target / "1").symlink_to(model / "1")
            (target / "model.toml").write_text(settings)
        yield folder


def rounds(curve, options):
    for turn in range(options.rounds):
        for point in curve.points:
            of = f"round {turn + 1} of {options.rounds}"
            progress(f"{curve.name}: {short(point)}, {of}")
            yield point


def with_one_server(curve, options, model, settings="", flags=(), floor=False):
    """All points on one server. What it keeps of an earlier, larger point shows in its memory: the
    rounds go upward, and the first of them counts for that."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(repository(model, settings=settings))
        server = stack.enter_context(Server(folder, *flags))
        smallest = stack.enter_context(Floor(server.address)) if floor else None
        server.load("m000", *BUSY, "--duration", 0.5)
        for point in rounds(curve, options):
            if floor:
                curve.floor[point].append(curve.measure(smallest, point, options))
            load = curve.measure(server, point, options)
            first = curve.loads[point][0] if curve.loads[point] else load
            curve.loads[point].append({**load, "rss_mb": first["rss_mb"]})


def callers(options):
    def measure(server, count, options):
        flags = ["--concurrency", count, *connections(count), "--duration", options.seconds]
        return server.load("m000", *flags)

    points = [1, 64, 4096] if options.quick else [1, 4, 16, 64, 256, 1000, 4096]
    curve = Curve("callers", "callers", points, measure, about=f"{STREAMS} a connection")
    with_one_server(curve, options, TINY, floor=True)
    return curve


def connected(options):
    def measure(server, count, options):
        flags = ["--concurrency", count, "--connections", count, "--duration", options.seconds]
        return server.load("m000", *flags)

    points = [1, 100, 2000] if options.quick else [1, 10, 50, 200, 1000, 2000]
    # Answers to one connection share a write; those to many do not: each is a write of its own.
    about = "one caller each"
    title = "connections, one caller each"
    # What belongs to a thousand connections and more is in no cache when its turn comes.
    curve = Curve("connections", title, points, measure, about=about, factor=2)
    with_one_server(curve, options, TINY, flags=["--max-connections", 4096], floor=True)
    return curve


def idle_connections(options):
    def measure(server, count, options):
        with contextlib.ExitStack() as open_ones:
            host, port = server.address.split(":")
            for _ in range(count - 1):
                one = open_ones.enter_context(socket.create_connection((host, int(port))))
                one.sendall(HELLO)
            time.sleep(0.2)
            return server.load("m000", *BUSY, "--duration", options.seconds)

    points = [1, 2000] if options.quick else [1, 100, 500, 2000]
    title = "connections, all but one idle"
    curve = Curve("idle connections", title, points, measure, about="64 callers on one")
    with_one_server(curve, options, TINY, flags=["--max-connections", 4096], floor=True)
    return curve


def payload(options):
    def measure(server, size, options):
        flags = ["--shape", f"x=1,{size // 4}", "--concurrency", 4 if size > 100_000 else 16]
        return server.load("m000", *flags, "--duration", options.seconds)

    points = [100, 10_000, 1_000_000, 60_000_000]
    if not options.quick:
        points = [100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 60_000_000]
    # A byte costs little beside the request that carries it, until there are many: from there on the
    # cost of a byte must stand still.
    curve = Curve("payload", "bytes there and back", points, measure, per=float, factor=2)
    curve.about = "4 callers from 1 MB on, else 16; a unit is a byte"
    with_one_server(curve, options, IDENTITY, floor=True)
    return curve


def rows(options):
    def measure(server, count, options):
        flags = ["--rows", count, "--concurrency", 16, "--duration", options.seconds]
        return server.load("m000", *flags)

    points = [1, 8, 64, 256] if options.quick else [1, 2, 4, 8, 16, 32, 64, 128, 256]
    curve = Curve("rows", "rows of a request", points, measure, per=float)
    curve.about = "16 callers; a unit is a row; above 64 in parts"
    with_one_server(curve, options, TINY)
    return curve


def streams(options):
    def measure(server, count, options):
        flags = ["--stream", "--streams", count, "--concurrency", 1, *connections(count)]
        return server.load("m000", *flags, "--duration", options.seconds)

    points = [1, 32, 1000] if options.quick else [1, 4, 16, 64, 256, 1000]
    curve = Curve("streams", "streams, one message in flight in each", points, measure)
    curve.about = f"{STREAMS} a connection"
    with_one_server(curve, options, TINY)
    return curve


def queue(options):
    """As many callers as requests shall wait: a closed loop holds a queue at its length."""

    def measure(server, count, options):
        flags = ["--concurrency", count, *connections(count), *LONG]
        return server.load("m000", *flags, "--duration", options.seconds)

    points = [10, 1000, 10_000] if options.quick else [10, 100, 1000, 10_000]
    title = "requests that wait, no batching"
    curve = Curve("queue", title, points, measure, about="each row runs alone, deadline 300 s")
    settings = 'batching = "off"\nmax_queue_jobs = 20000'
    with_one_server(curve, options, TINY, settings)
    return curve


def models(options):
    def measure(server, _, options):
        return server.load("m000", *BUSY, "--duration", options.seconds)

    points = [1, 20, 200] if options.quick else [1, 10, 50, 100, 200]
    title = "loaded models, all but one idle"
    curve = Curve("models", title, points, measure, about="64 callers on one", factor=1.3)
    for count in rounds(curve, options):
        with repository(TINY, count) as folder, Server(folder) as server:
            server.load("m000", *BUSY, "--duration", 0.3)
            resident = server.resident_mb()
            load = measure(server, count, options)
            curve.loads[count].append({**load, "started_s": server.started_s, "rss_mb": resident})
    return curve


def instances(options):
    """On as many processors as there are instances; the generator is light and shares the last."""

    def measure(server, count, options):
        flags = ["--concurrency", 8 * count, "--duration", options.seconds]
        return server.load("m000", *flags)

    points = [1]
    while points[-1] * 2 <= PROCESSORS:
        points.append(points[-1] * 2)
    curve = Curve("instances", "instances, a processor each", points, measure, factor=1.3)
    curve.about = "magika, 8 callers each"
    for count in rounds(curve, options):
        flags = ["--instances", count, "--intra-op-threads", 1]
        with repository(MAGIKA) as folder:
            with Server(folder, *flags, processors=f"0-{count - 1}") as server:
                server.load("m000", "--concurrency", 8, "--duration", 0.5)
                curve.loads[count].append(measure(server, count, options))
    return curve


CURVES = {
    "callers": callers,
    "connections": connected,
    "idle": idle_connections,
    "payload": payload,
    "rows": rows,
    "streams": streams,
    "queue": queue,
    "models": models,
    "instances": instances,
}


def slope(found, figure):
    """What one more costs, between the first point and the last."""
    first, last = found[0], found[-1]
    return (last[figure] - first[figure]) / (last["point"] - first["point"])


def more_checks(found):
    """Of what idle ones take, and of the rate where processors are added."""
    if "models" in found:
        each = slope(found["models"], "rss_mb")
        yield check("models: memory of an idle one, MB", each, 1.0)
        each = 1000 * slope(found["models"], "started_s")
        yield check("models: start-up of one more, ms", each, 60.0)
    if "idle" in found:
        yield check(
            "idle connections: memory of one, kB", 1000 * slope(found["idle"], "rss_mb"), 50.0
        )
    if "callers" in found:
        yield check("callers: memory of one, kB", 1000 * slope(found["callers"], "rss_mb"), 50.0)


def told(curves):
    for curve in curves.values():
        print(f"\n{curve.title} ({curve.about})")
        heads = ("CPU us", "floor", "answers/s", "p50 us", "p99 us", "MB")
        print(f"{'':>8}" + "".join(f"{head:>11}" for head in heads))
        for each in curve.figures():
            start = f"  ready in {each['started_s']:.2f} s" if "started_s" in each else ""
            floor = f"{each['floor_cpu_us']:11.1f}" if "floor_cpu_us" in each else " " * 11
            print(
                f"{short(each['point']):>8}{each['cpu_us']:11.1f}{floor}{each['rate']:11.0f}"
                f"{each['p50_us']:11.0f}{each['p99_us']:11.0f}{each['rss_mb']:11.1f}{start}"
            )


def drawn(curves, path):
    """One panel a curve: the processor time of a unit, and of all that a point may cost."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plot

    # The same figures make the same file, and words stay words.
    plot.rcParams.update({"svg.hashsalt": "scaling", "svg.fonttype": "none", "font.size": 8})
    columns = 3
    lines = -(-len(curves) // columns)
    figure, panels = plot.subplots(lines, columns, figsize=(11, 2.7 * lines), squeeze=False)
    for panel in panels.flat[len(curves) :]:
        panel.set_visible(False)
    for panel, curve in zip(panels.flat, curves.values()):
        found = curve.figures()
        points = [each["point"] for each in found]
        for kind, color, label in (
            ("cpu_us", "#0b6e99", "CPU of an answer, µs"),
            ("floor_cpu_us", "#8fbcd0", "the same at the floor, µs"),
            ("p50_us", "#c0504d", "p50, µs"),
            ("rss_mb", "#7f7f7f", "memory, MB"),
        ):
            style = {"color": color, "marker": "o", "markersize": 3, "linewidth": 1.2}
            if kind in found[0]:
                panel.plot(points, [each[kind] for each in found], label=label, **style)
        panel.set(xscale="log", yscale="log", title=curve.title)
        panel.set_xticks(points, map(short, points), minor=False)
        panel.minorticks_off()
        panel.grid(True, color="#dddddd", linewidth=0.5)
        panel.spines[["top", "right"]].set_visible(False)
    # The panel with the most lines names them all.
    labels = max(
        (panel.get_legend_handles_labels() for panel in panels.flat), key=lambda p: len(p[1])
    )
    figure.legend(*labels, loc="upper center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of few, short loads")
    parser.add_argument("--only", help=f"some of {','.join(CURVES)}")
    options = parser.parse_args()
    options.rounds, options.seconds = (1, 0.8) if options.quick else (3, 1.5)
    wanted = options.only.split(",") if options.only else list(CURVES)
    if unknown := set(wanted) - set(CURVES):
        parser.error(f"--only: no such curve: {', '.join(sorted(unknown))}")
    begun_at = time.monotonic()
    curves = {name: CURVES[name](options) for name in wanted}
    told(curves)
    found = {name: curve.figures() for name, curve in curves.items()}
    checks = [each for curve in curves.values() for each in curve.checks()]
    checks += more_checks(found)
    print()
    width = max(len(each["check"]) for each in checks)
    for each in checks:
        verdict = "met" if each["met"] else "BENDS"
        line = f"{each['check']:{width}}  {each['figure']:7.2f}  <= {each['bound']:<5}  {verdict:6}"
        print(f"{line} {each['where']}".rstrip())
    all_loads = [
        load for curve in curves.values() for each in curve.loads.values() for load in each
    ]
    others = median(all_loads, lambda load: load["others_share"])
    print(f"\nother processes: {100 * others:.0f} % of a core")
    out = ROOT / "bench-out"
    out.mkdir(exist_ok=True)
    figures = {"curves": found, "checks": checks, "others_share_of_core": others}
    (out / "scaling.json").write_text(json.dumps(figures, indent=1))
    drawn(curves, out / "scaling.svg")
    progress(f"{time.monotonic() - begun_at:.0f} s; written: bench-out/scaling.json, scaling.svg")


if __name__ == "__main__":
    try:
        main()
    except LoadFailed as problem:
        sys.exit(f"a load failed: {problem}")
