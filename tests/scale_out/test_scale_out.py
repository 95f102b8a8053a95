"""More than one server: none of the calls that run fails while servers come and go."""

import pytest

from fronts import FRONTS
from trial import TRIALS, running

ROUNDS = 3


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("trial", TRIALS)
def test_no_call_fails(front, trial, tmp_path):
    calls = TRIALS[trial](front, tmp_path, ROUNDS)
    print(f"{calls.total()} calls, slowest {calls.worst * 1000:.0f} ms")
    assert calls.answered["slow"] > 0


def test_a_server_that_is_killed_is_noticed(tmp_path):
    # The control: what the trials look for is seen where it happens.
    with running("round_robin", tmp_path, 2) as (fleet, calls):
        server = fleet.servers[0]
        while not calls.failures:
            before = server.answered()
            while server.answered() < before + 10:
                pass
            server.kill()
            server.start(fleet.releases[1])
    assert {code for code, _ in calls.failures} <= {"UNAVAILABLE"}
