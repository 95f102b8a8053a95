#!/usr/bin/env python3
"""The scheduler on real models: the default against settings by hand, overload, mixed lengths.

    make bench-scheduling            (ARGS=--quick: shorter loads, ARGS="--only magika": one part)

Server on the first processor, load generator (`onnxd bench`) on the last. The speed of a machine is not
its own, and may be half of what it was a second ago: so each load is held against two of its rival, one
before and one after; the half of all rounds counts whose two rivals agree best, and of these the median.
Who is best among many is found first, and then measured anew: the best of many figures is also the
luckiest. Prints a table with the target of each row and writes bench-out/scheduling.json.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import process
from process import BENCH, GENERATOR, ROOT, pinned, progress

# Samples of one frame of silero-vad, which its graph leaves open.
FLAGS = {"silero-vad": ["--shape", "input=1,576"]}
AT_LEAST, AT_MOST = ">=", "<="
SIZES = [1, 2, 4, 8, 16, 32, 64]
# Texts have from one to so many tokens.
LONGEST = 128
RULES = """
[inputs.input_ids]
pad = { axis = 1, value = 0 }
example_shape = [1, 64]
[inputs.attention_mask]
pad = { axis = 1, value = 0 }
example_value = 1
"""
PADDED = {
    "text_recurrent": RULES,
    "text_mixed": RULES + "[outputs.token_scores]\ncut = { axis = 1 }\n",
}


class Server(process.Server):
    """An onnxd, and loads on it."""

    def load(self, model, *flags):
        return super().load(model, *FLAGS.get(model, []), *flags)

    def started(self, model, *flags):
        """A load that goes on beside others; its figures are what the process prints."""
        command = [BENCH, "bench", model, "--addr", self.address, "--json"]
        command += [*FLAGS.get(model, []), *flags]
        return subprocess.Popen(pinned(GENERATOR, command), stdout=subprocess.PIPE, text=True)


def repository(model, settings, folder):
    """A repository with one model of `models/` or of a path, and these settings over its own."""
    source = pathlib.Path(model) if "/" in str(model) else ROOT / "models" / model
    target = pathlib.Path(folder) / source.name
    target.mkdir(parents=True)
    for entry in source.iterdir():
        if entry.name != "model.toml":
            (target / entry.name).symlink_to(entry.resolve())
    own = source / "model.toml"
    text = own.read_text() if own.exists() else ""
    (target / "model.toml").write_text(settings + "\n" + text)
    return folder


def goodput(load):
    """Answers in time a second."""
    return (load["answers"] - load["late"]) / load["seconds"]


def rates(model, flags, settings, options):
    """Goodput with each of the settings, in turns; medians."""
    found = {name: [] for name in settings}
    name = pathlib.Path(model).name
    for turn in range(options.rounds):
        for kind, text in settings.items():
            progress(f"{name}: {kind}, round {turn + 1} of {options.rounds}")
            with tempfile.TemporaryDirectory() as folder:
                with Server(repository(model, text, folder)) as server:
                    server.load(name, *flags, "--duration", 1)
                    load = server.load(name, *flags, "--duration", options.seconds)
                    found[kind].append(goodput(load))
    return {kind: statistics.median(values) for kind, values in found.items()}


class Round:
    """A load, over the mean of its rival's figures before and after it."""

    def __init__(self, figure, before, after, load=None):
        self.load = load
        self.share = figure / statistics.mean([before, after])
        # How much the speed of the machine has changed meanwhile.
        self.change = abs(before - after) / max(before, after)


def between(count, load, rival, say):
    """So many rounds of loads."""
    rounds, before = [], rival()
    for turn in range(count):
        say(f"round {turn + 1} of {count}")
        figure, after = load(), rival()
        rounds.append(Round(figure, before, after))
        before = after
    return rounds


def steady(rounds):
    """Those rounds in which the machine has changed its speed least: the half of all."""
    return sorted(rounds, key=lambda each: each.change)[: (len(rounds) + 1) // 2]


def median(rounds):
    """Of the steady ones."""
    return statistics.median(each.share for each in steady(rounds))


def told(rounds):
    """All that was measured, for the file."""
    return [[round(each.share, 3), round(each.change, 3)] for each in rounds]


def duel(model, flags, one, other, seconds, options):
    """Goodput with one of two settings over that with the other, both served at the same time."""
    name = pathlib.Path(model).name

    def side(server):
        server.load(name, *flags, "--duration", 1)
        return lambda: goodput(server.load(name, *flags, "--duration", seconds))

    with tempfile.TemporaryDirectory() as mine, tempfile.TemporaryDirectory() as its:
        with Server(repository(model, one, mine)) as server:
            with Server(repository(model, other, its)) as rival:
                say = lambda turn: progress(f"{name}: one against the other, {turn}")
                return between(many(options), side(server), side(rival), say)


def many(options):
    """Rounds of a comparison of two."""
    return 7 * options.rounds


def against_hand(rows, options):
    fixed = {
        f"fixed {size}": f'batching = "fixed"\nmax_batch_size = {size}' for size in SIZES
    }
    settings = {"off": 'batching = "off"', **fixed}
    for model, callers, rival in [("magika", 16, "off"), ("silero-vad", 32, "best fixed")]:
        if options.only and options.only not in model:
            continue
        flags = ["--concurrency", callers]
        hand, note = "off", ""
        if rival != "off":
            found = rates(model, flags, fixed, options)
            hand = max(found, key=found.get)
            note = f"best by hand: {hand}"
        found = duel(model, flags, "", settings[hand], options.seconds / 3, options)
        name = f"{model}, {callers} callers: auto over {rival}"
        share = median(found)
        rows.append(row(name, share, AT_LEAST, 0.98, told(found), note))


def overload(rows, options):
    """Beyond the capacity, against the best that any load gets out of the server."""
    if options.only and options.only != "overload":
        return
    with Server(ROOT / "models") as server:
        server.load("magika", "--concurrency", 16, "--duration", 2)
        capacity = lambda: capacity_of(server, "magika", 16, options)
        now = capacity()
        kinds = [(factor, "cancel") for factor in (1, 1.25, 1.5)]
        kinds += [(factor, each) for factor in (2, 5, 10) for each in ("cancel", "never cancel")]
        rounds = {kind: [] for kind in kinds}
        few, count = 3 * options.rounds, 6 * options.rounds
        for turn in range(count):
            # The narrowest shares are measured most often.
            for factor, clients in kinds if turn < few else kinds[-4:]:
                of = f"round {turn + 1} of {count}"
                progress(f"magika at {factor} times its capacity, clients that {clients}, {of}")
                flags = ["--rate", now * factor, "--timeout-ms", 50, "--connections", 4]
                flags += ["--no-cancel"] if clients == "never cancel" else []
                load = server.load("magika", *flags, "--duration", options.seconds / 2)
                before, now = now, capacity()
                rounds[factor, clients].append(Round(goodput(load), before, now, load))
        # Of what callers get who wait for each answer.
        medians = {kind: median(each) for kind, each in rounds.items()}
        best = max(medians, key=medians.get)
        note = f"its best: {medians[best]:.2f} of {now:.0f}/s, at {best[0]}x"
        for factor, clients in kinds[3:]:
            loads = [each.load for each in steady(rounds[factor, clients])]
            name = f"magika at {factor}x, clients that {clients}"
            share = medians[factor, clients] / max(medians[best], 0.01)
            figures = told(rounds[factor, clients])
            rows.append(row(f"{name}: goodput over best", share, AT_LEAST, 0.95, figures, note))
            answers = sum(load["answers"] for load in loads)
            late = 100 * sum(load["late"] for load in loads) / max(answers, 1)
            rows.append(row(f"{name}: late answers, %", late, AT_MOST, 1.0, loads))
            refused = statistics.median(load["refusal_us"]["p50"] for load in loads) / 1000
            rows.append(row(f"{name}: median time of a refusal, ms", refused, AT_MOST, 5.0, loads))
        for clients in ("cancel", "never cancel"):
            recovery(rows, server, now, clients, options)
        fairness(rows, server, capacity, options)


def cheap(rows, options):
    """Twice the capacity of a model whose rows cost less than what it takes to refuse them."""
    if options.only and options.only != "cheap" or options.text is None:
        return
    with Server(pathlib.Path(options.text).resolve()) as server:
        server.load("mlp_rank", "--concurrency", 64, "--duration", 1)
        rounds = {"cancel": [], "never cancel": []}
        capacity = capacity_of(server, "mlp_rank", 64, options)
        for turn in range(many(options)):
            for clients, found in rounds.items():
                progress(f"mlp_rank at twice its capacity, clients that {clients}, round {turn + 1}")
                flags = ["--rate", capacity * 2, "--timeout-ms", 50, "--connections", 4]
                flags += ["--no-cancel"] if clients == "never cancel" else []
                load = server.load("mlp_rank", *flags, "--duration", options.seconds / 3)
                before, capacity = capacity, capacity_of(server, "mlp_rank", 64, options)
                found.append(Round(goodput(load), before, capacity))
    for clients, found in rounds.items():
        name = f"mlp_rank at 2x, clients that {clients}: goodput over capacity"
        share = median(found)
        worst = f"worst of all rounds: {min(each.share for each in found):.2f}"
        rows.append(row(name, share, AT_LEAST, 0.68, told(found), worst))


def capacity_of(server, model, callers, options):
    flags = ["--concurrency", callers, "--duration", options.seconds / 4]
    return server.load(model, *flags)["answers_per_second"]


def recovery(rows, server, capacity, clients, options):
    """How long after an overload those who ask for half of the capacity get what they usually do."""
    found, count = [], 2 * options.rounds + 1
    for turn in range(count):
        of = f"round {turn + 1} of {count}"
        progress(f"magika after 5 times its capacity, clients that {clients}, {of}")
        found.append(time_back(server, capacity, clients))
    name = f"magika after 5x, clients that {clients}: back to 99 % in time, s"
    took = statistics.median(took for took, *_ in found)
    rows.append(row(name, took, AT_MOST, 0.5, found, "of what is in time without an overload"))


def time_back(server, capacity, clients):
    """The time after one overload, and when requests came in time with it and without it.

    Requests come at the same moments in both: some of a burst are late on a server that is never
    overloaded, too.
    """
    flags = ["--timeout-ms", 50] + (["--no-cancel"] if clients == "never cancel" else [])
    modest = ["magika", *flags, "--rate", capacity / 2, "--duration", 7]
    begun_at = time.monotonic()
    caller = server.started(*modest)
    time.sleep(1.5)
    over = server.started(
        "magika", *flags, "--rate", capacity * 5, "--connections", 4, "--duration", 2
    )
    ended_at = time.monotonic() + 2 - begun_at
    over.communicate()
    line = json.loads(caller.communicate()[0])["timeline"]
    alone = server.load(*modest)["timeline"]
    window = line["window_ms"] / 1000
    begin = round(ended_at / window)
    parts = list(zip(line["in_time"], alone["in_time"]))[begin:]
    # The first moment from which on it is 99 % of what it is without.
    shares = (
        sum(good for good, _ in parts[index:]) / max(sum(usual for _, usual in parts[index:]), 1)
        for index in range(len(parts))
    )
    back = next((index for index, share in enumerate(shares) if share >= 0.99), len(parts))
    return back * window, line, alone


def fairness(rows, server, capacity, options):
    """A caller who asks for a third, beside one who asks for five times of what there is."""
    name, flags = "magika: a modest caller beside a greedy one", ["--timeout-ms", 50, "--duration", options.seconds / 2]
    rate, modest = capacity(), []

    def both():
        greedy = server.started("magika", *flags, "--rate", rate * 5)
        modest.append(server.load("magika", *flags, "--rate", rate / 3))
        return goodput(json.loads(greedy.communicate()[0])) + goodput(modest[-1])

    say = lambda turn: progress(f"{name}, {turn}")
    pairs = between(2 * options.rounds, both, capacity, say)
    in_time = statistics.median(load["in_time_share"] for load in modest)
    name = "magika: in time of a modest caller beside a greedy one"
    rows.append(row(name, in_time, AT_LEAST, 0.95, modest))
    share = median(pairs)
    rows.append(row("magika: goodput of both over capacity", share, AT_LEAST, 0.95, told(pairs)))


def neighbours(rows, options):
    """A model that shares the core with one that is asked for five times of what it can do."""
    if options.only and options.only != "neighbours":
        return
    with Server(ROOT / "models") as server:
        alone = lambda: capacity_of(server, "silero-vad", 32, options)
        alone()

        def beside():
            over = ["--rate", 500, "--timeout-ms", 50, "--duration", options.seconds + 1]
            other = server.started("magika", *over)
            time.sleep(0.5)
            figure = alone()
            other.communicate()
            return figure

        say = lambda turn: progress(f"silero-vad beside magika at 5 times its capacity, {turn}")
        pairs = between(2 * options.rounds, beside, alone, say)
    name = "silero-vad beside an overloaded magika: rate over its rate alone"
    share, note = median(pairs), "half of the core is its share"
    rows.append(row(name, share, AT_LEAST, 0.45, told(pairs), note))


def mixed_lengths(rows, options):
    """Texts of all lengths, with and without a padding rule.

    Where batches pay, as in the recurrent model, those who pad fill them. In the encoder, a text
    alone makes full use of a core: there the rule must do no harm. It is asked by as many as can be in
    time, too: among more, who come again and again, the lengths that get in are not those that come,
    and the figure tells of them as well.
    """
    if options.only and options.only != "text":
        return
    if options.text is None:
        progress("no text models given (--text FOLDER): mixed lengths are left out")
        return
    flags = ["--lengths", f"1..{LONGEST}", "--timeout-ms", options.text_deadline_ms]
    wanted = [("text_recurrent", 64, 2.0), ("text_mixed", 16, 0.98), ("text_mixed", 64, 0.98)]
    for model, callers, target in wanted:
        path = pathlib.Path(options.text).resolve() / model
        of = [*flags, "--concurrency", callers]
        found = duel(path, of, PADDED[model], "", options.seconds, options)
        name = f"{model}, {callers} callers, 1 to {LONGEST} tokens: padded over equal shapes"
        share = median(found)
        note = f"answers within {options.text_deadline_ms} ms"
        rows.append(row(name, share, AT_LEAST, target, told(found), note))


def row(name, figure, bound, target, figures, note=""):
    met = figure >= target if bound == AT_LEAST else figure <= target
    return {
        "row": name,
        "figure": figure,
        "bound": bound,
        "target": target,
        "met": met,
        "note": note,
        "figures": figures,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of short loads")
    parser.add_argument("--only", help="magika, silero, overload, cheap, neighbours, text")
    parser.add_argument("--text", help="folder with the models that are made for this")
    parser.add_argument("--text-deadline-ms", type=int, default=500)
    options = parser.parse_args()
    options.rounds, options.seconds = (1, 2) if options.quick else (3, 4)
    rows, begun_at = [], time.monotonic()
    against_hand(rows, options)
    overload(rows, options)
    cheap(rows, options)
    neighbours(rows, options)
    mixed_lengths(rows, options)
    width = max(len(each["row"]) for each in rows)
    for each in rows:
        figures = f"{each['figure']:6.2f}  {each['bound']} {each['target']:.2f}"
        figures += f"  {'met' if each['met'] else 'MISSED':6}"
        print(f"{each['row']:{width}}  {figures}  {each['note']}")
    out = ROOT / "bench-out" / "scheduling.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(rows, indent=1))
    progress(f"{time.monotonic() - begun_at:.0f} s; figures in {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
