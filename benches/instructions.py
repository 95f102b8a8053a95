#!/usr/bin/env python3
"""Instructions that a prediction takes, by its parts and as a whole, held against a record.

    make bench-instructions          (ARGS=--record: keep the counts, ARGS="--only decode")

Times of a machine that does other work, too, say little about a change of two per cent; counts of
instructions repeat whatever else runs. Two kinds, all taken by valgrind's callgrind:

- Parts, from `benches/instructions/main.rs`: the program runs twice with different rounds, and the
  difference is what the rounds took. These repeat to within a tenth of a per cent.
- The whole server, with its system's calls left out (valgrind sees none of the kernel): `onnxd serve`
  and the floor of `make bench` under 64 callers, counted while a load is on, divided by the answers.
  These repeat to within about a per cent, since batches and writes differ a little each time.

A count that is more than BOUND above the record fails: three times what the whole server varies by,
and more than what moves when the compiler places unrelated code elsewhere. What became cheaper is
told, so that the record can follow it. Counts depend on the compiler, valgrind and the runtime
library; the record names those that it was made with, and others are not compared: check out the
commit before the change, record there with what is installed, come back and compare.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ONNXD = ROOT / "target" / "release" / "onnxd"
RUNTIME = ONNXD.parent / "onnxruntime"
RECORD = ROOT / "benches" / "instructions" / "record.json"
MODEL = ROOT / "tests" / "data" / "models" / "mlp_tiny"
# Share by which a count may grow.
BOUND = 0.03
# Rounds of the two runs of a part.
ROUNDS = (256, 2304)
CALLERS = 64
# Seconds of load: before counting, so that everything was used once, and while counting.
WARM_UP, COUNTED = 2, 6
# Seconds in which a server must have come up under valgrind, where all is fifty times slower.
PATIENCE = 120


def valgrind(*options):
    return ["valgrind", "--tool=callgrind", *options]


def built(bench):
    """The program of a bench, built if it has to be."""
    command = ["cargo", "bench", "--locked", "--bench", bench, "--no-run"]
    command += ["--message-format", "json-render-diagnostics"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = (json.loads(line) for line in lines.splitlines())
    wanted = (each for each in messages if each.get("target", {}).get("name") == bench)
    return next(each["executable"] for each in wanted if each.get("executable"))


def part(program, name):
    """Instructions of one round."""
    counts = []
    for rounds in ROUNDS:
        command = valgrind("--callgrind-out-file=/dev/null")
        command += [program, name, str(rounds)]
        ran = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
        found = re.search(r"Collected : (\d+)", ran.stderr)
        if ran.returncode != 0 or found is None:
            sys.exit(f"{name}: {ran.stderr}")
        counts.append(int(found.group(1)))
    return (counts[1] - counts[0]) / (ROUNDS[1] - ROUNDS[0])


def load(address, describer, seconds):
    command = [ONNXD, "bench", "mlp_tiny", "--addr", address, "--describe", describer, "--json"]
    command += ["--concurrency", str(CALLERS), "--duration", str(seconds)]
    loaded = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if set(loaded["codes"]) != {"0"}:
        sys.exit(f"not every request was answered: {loaded['codes']}")
    return loaded["answers"]


def whole(command, describer, folder):
    """Instructions of a whole server for one answer; `describer` knows the model, if it does not."""
    out = folder / "callgrind.out"
    # With this set, the server need not start itself anew, and valgrind does not lose it.
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    command = valgrind("--instr-atstart=no", f"--callgrind-out-file={out}") + command
    with open(folder / "server.log", "w+") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            address = announced(server, folder / "server.log")
            describer = describer or address
            load(address, describer, WARM_UP)
            control(server, "on")
            answers = load(address, describer, COUNTED)
            control(server, "off")
        finally:
            server.terminate()
            server.wait(PATIENCE)
    totals = re.findall(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)
    return int(totals[-1]) / answers


def control(server, switch):
    command = ["callgrind_control", "-i", switch, str(server.pid)]
    quiet = subprocess.DEVNULL
    subprocess.run(command, check=True, stdout=quiet, stderr=quiet)


def announced(server, log):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and server.poll() is None:
        found = re.search(r"gRPC +(\S+:\d+)", log.read_text())
        if found:
            return found.group(1)
        time.sleep(0.1)
    sys.exit(f"the server did not start: {log.read_text()}")


def serve(models):
    addresses = [f"--{port}-addr=127.0.0.1:0" for port in ("grpc", "http", "admin")]
    return [str(ONNXD), "serve", str(models), *addresses, "--intra-op-threads", "1"]


def servers(floor):
    """Counts of the whole server and of the floor."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "models").mkdir()
        (folder / "models" / "mlp_tiny").symlink_to(MODEL)
        counts = {"server": whole(serve(folder / "models"), None, folder)}
        # The floor cannot describe its models.
        with open(folder / "describer.log", "w+") as log:
            describer = subprocess.Popen(serve(folder / "models"), stdout=log, stderr=log)
            try:
                address = announced(describer, folder / "describer.log")
                # Killed by SIGTERM or not, callgrind writes what it has counted.
                counts["floor"] = whole([floor, "floor"], address, folder)
            finally:
                describer.terminate()
                describer.wait(PATIENCE)
    return counts


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def made_with():
    return {
        "machine": platform.machine(),
        "rustc": output("rustc", "--version"),
        "valgrind": output("valgrind", "--version"),
        "onnxruntime": json.loads((RUNTIME / "manifest.json").read_text())["version"],
    }


def install_valgrind():
    """From the system's packages, as `tests/clients/tools.sh` does."""
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    for arguments in (["update", "-q"], ["install", "-qy", "--no-install-recommends", "valgrind"]):
        subprocess.run([*as_root, "apt-get", *arguments], check=True, stdout=sys.stderr)


def compare(counts, recorded):
    """Prints the table; whether nothing has grown beyond the bound."""
    fine = True
    print(f"{'':12} {'now':>10} {'record':>10} {'change':>8}")
    for name, count in counts.items():
        before = recorded.get(name)
        change, verdict = "", "not recorded"
        if before:
            share = count / before - 1
            grown = share > BOUND
            fine &= not grown
            change = f"{100 * share:+.1f} %"
            verdict = "GROWN" if grown else "cheaper: record it" if share < -BOUND else ""
        else:
            fine = False
        print(f"{name:12} {count:10.0f} {before or 0:10.0f} {change:>8}  {verdict}".rstrip())
    if {"server", "floor"} <= counts.keys():
        print(f"server over floor: {counts['server'] / counts['floor']:.2f}")
    return fine


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="keep the counts as the record")
    parser.add_argument("--only", help="a part, or `server`, which takes the floor, too")
    options = parser.parse_args()
    if not any((pathlib.Path(each) / "valgrind").exists() for each in os.get_exec_path()):
        install_valgrind()
    program = built("instructions")
    names = output(program).split()
    if options.only not in (None, "server", *names):
        sys.exit(f"--only: expected one of server, {', '.join(names)}")
    counts = {}
    for name in names:
        if options.only in (None, name):
            counts[name] = part(program, name)
            print(f"{name}: {counts[name]:.0f}", file=sys.stderr)
    if options.only in (None, "server"):
        counts |= servers(built("server"))
    tools, record = made_with(), json.loads(RECORD.read_text()) if RECORD.exists() else {}
    comparable = record.get("made_with") == tools
    recorded = record.get("instructions", {}) if comparable else {}
    fine = compare(counts, recorded)
    if options.record:
        kept = recorded | {name: round(count) for name, count in counts.items()}
        RECORD.write_text(json.dumps({"made_with": tools, "instructions": kept}, indent=2) + "\n")
    elif not comparable:
        made = record.get("made_with")
        sys.exit(f"not compared: the record was made with {made}, here is {tools}")
    sys.exit(0 if fine or options.record else 1)


if __name__ == "__main__":
    main()
