"""The short forms of `make chaos` and `make soak`: every kind of event once, some seconds of load.

The long ones say whether something grows slowly; these say that nothing is lost, that answers are right
and that the programs themselves work.
"""

import json
import os
import subprocess
import sys

import harness

ENDURANCE = harness.ROOT / "tests" / "endurance"
REPORTS = harness.ROOT / "bench-out"


def run(program, *flags):
    done = subprocess.run(
        [sys.executable, ENDURANCE / program, "--seed", "7", *flags],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "ONNXD_BIN": harness.BINARY},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_chaos():
    said = run("chaos.py", "--minutes", "0.3", "--calm", "4")
    assert "nothing lost, nothing wrong, nothing grown" in said
    report = json.loads((REPORTS / "chaos.json").read_text())
    assert len(report["events"]) == 8, report["events"]
    assert report["codes"]["good OK"] > 100, report["codes"]


def test_soak():
    # What is planted, four kibibytes a request, grows by tens of mebibytes a minute.
    said = run("soak.py", "--minutes", "0.4", "--most-growth", "16384")
    assert "nothing grows, nothing lost, nothing wrong" in said
    report = json.loads((REPORTS / "soak.json").read_text())
    assert len(report["points"]) > 10
