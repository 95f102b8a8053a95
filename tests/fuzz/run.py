#!/usr/bin/env python3
"""Runs fuzz targets one after the other and says in a table how each of them did.

    make fuzz                     (ARGS="--minutes 1 decode strings"; it builds them first)

Each begins with a copy of its corpus, so that the corpus stays what people put into it. A target fails
with a crash, with an input that takes a second, and with memory beyond what its process has anyway.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FUZZ = ROOT / "tests" / "fuzz"
ARTIFACTS = ROOT / "target" / "fuzz-artifacts"

# Seconds that an input may take, and MiB that a target may have above an empty run of it. Sanitized code
# is some times slower and larger than the server's, so that both are stricter here than they read.
MOST_SECONDS = 1
MOST_MEMORY = 256
# Longest inputs. By itself libFuzzer stays below the largest file of the corpus, where what grows with the
# square of the length cannot be seen.
MOST_BYTES = 1 << 16
# Seconds for an end beyond its time.
PATIENCE = 60

# What AddressSanitizer keeps of freed memory, in MiB, would else be as much as the limit.
SANITIZER = "detect_odr_violation=0:quarantine_size_mb=16"

# How libFuzzer begins the names of the files of what it found.
KINDS = {
    "crash": "crash",
    "timeout": f"an input takes over {MOST_SECONDS} s",
    "slow-unit": f"an input takes over {MOST_SECONDS} s",
    "oom": f"more than {MOST_MEMORY} MiB",
    "leak": "memory is not given back",
}


def targets():
    manifest = tomllib.loads((FUZZ / "Cargo.toml").read_text())
    return [each["name"] for each in manifest["bin"]]


def libfuzzer(binary, log, *arguments, patience=PATIENCE):
    """Runs a target to its end, its words into a file; its exit code, or none if it did not end."""
    environment = {**os.environ, "ASAN_OPTIONS": SANITIZER, "RUST_BACKTRACE": "1"}
    command = [str(binary), *map(str, arguments), "-print_final_stats=1"]
    with open(log, "wb") as words:
        try:
            return subprocess.run(
                command, stdout=words, stderr=subprocess.STDOUT, env=environment, timeout=patience
            ).returncode
        except subprocess.TimeoutExpired:
            return None


def last(pattern, text):
    """The last number that follows the pattern."""
    found = re.findall(rf"{pattern}\s*(\d+)", text)
    return int(found[-1]) if found else 0


def fuzz(binary, name, minutes):
    """A row of the table, and lines about what was found."""
    artifacts, log = ARTIFACTS / name, ARTIFACTS / f"{name}.log"
    artifacts.mkdir(parents=True, exist_ok=True)
    libfuzzer(binary, log, "-runs=0")
    itself = last("stat::peak_rss_mb:", log.read_text(errors="replace"))
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / name
        shutil.copytree(FUZZ / "corpus" / name, corpus)
        seconds = round(minutes * 60)
        code = libfuzzer(
            binary,
            log,
            corpus,
            f"-max_total_time={seconds}",
            f"-max_len={MOST_BYTES}",
            f"-timeout={MOST_SECONDS}",
            f"-report_slow_units={MOST_SECONDS}",
            f"-rss_limit_mb={itself + MOST_MEMORY}",
            f"-malloc_limit_mb={MOST_MEMORY}",
            f"-artifact_prefix={artifacts}/",
            patience=seconds + PATIENCE,
        )
    text = log.read_text(errors="replace")
    peak, most = last("stat::peak_rss_mb:", text), itself + MOST_MEMORY
    result, found = judge(binary, log, code, text, peak > most)
    row = (
        name,
        f"{last('stat::number_of_executed_units:', text):,}",
        f"{last('stat::average_exec_per_sec:', text):,}",
        f"{last('cov:', text):,}",
        f"{peak} of {most}",
        result,
    )
    return row, found


def judge(binary, log, code, text, is_large):
    """The result in a few words, and lines that say more about a bad one."""
    files = [Path(each) for each in re.findall(r"Test unit written to (\S+)", text)]
    if code == 0 and not files and not is_large:
        return "well", []
    kinds = {
        kind: words for file in files for kind, words in KINDS.items() if file.name.startswith(kind)
    }
    if is_large and not files:
        # libFuzzer looks once a second and misses what lasts less; the system knows the most there was.
        kinds["oom"] = f"{KINDS['oom']} for a moment, by an input that is not known"
    result = ", ".join(dict.fromkeys(kinds.values())) or (
        "it does not end" if code is None else f"exit code {code}"
    )
    lines = [f"{log.stem}: {result}; its words are in {log.relative_to(ROOT)}"]
    causes = re.findall(r"panicked at (.*\n.*)", text) or re.findall(r"ERROR: (.*)", text)
    for cause in causes[:1]:
        lines += [f"  {line}" for line in cause.splitlines()]
    for file in files:
        lines.append(f"  again: {binary.relative_to(ROOT)} {file.relative_to(ROOT)}")
    if files:
        lines.append(f"  when mended, keep the file: tests/fuzz/corpus/{log.stem}")
    return f"FAILED: {result}", lines


def main(options):
    names = options.targets or targets()
    if unknown := set(names) - set(targets()):
        sys.exit(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(targets())}")
    widths = (max(map(len, names)), 12, 10, 9, 10, 0)

    def show(row):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1])]
        print("  ".join([*cells, row[-1]]), flush=True)

    print(f"{len(names)} targets, {options.minutes:g} minutes each", file=sys.stderr, flush=True)
    show(("target", "runs", "a second", "coverage", "MiB", "result"))
    faults = []
    for name in names:
        row, found = fuzz(options.binaries.resolve() / name, name, options.minutes)
        show(row)
        faults += found
    print("\n".join(faults) if faults else "no crash, no hang, bounded memory")
    return 1 if faults else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target")
    parser.add_argument("--binaries", type=Path, required=True, help="where the built targets are")
    parser.add_argument("targets", nargs="*", help="default: all of them")
    sys.exit(main(parser.parse_args()))
