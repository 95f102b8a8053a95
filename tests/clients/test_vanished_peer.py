"""A peer that is gone without a word."""

import json
import pathlib
import sys

import harness
import vanished


def test_a_peer_whose_link_goes_down_is_let_go_with_its_calls(tmp_path):
    harness.copy_models(tmp_path, "loop_busy")
    script = pathlib.Path(vanished.__file__)
    command = ["unshare", "--map-root-user", "--net", "--mount", sys.executable, script, tmp_path]
    ended = harness.run(*command)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    # Both times of keep-alive and a second.
    limit = (vanished.KEEPALIVE_MS + vanished.KEEPALIVE_TIMEOUT_MS) / 1000 + 1
    assert found["seconds"] < limit
    assert found["cancelled"] == 2
