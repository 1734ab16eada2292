"""Some rounds of the kill loop. `make kill-loop ROUNDS=200` does more of them, and prints a table."""

import random

from conftest import FOLDER, started_by_tests
from kill_loop import run

ROUNDS = 15


def test_no_acknowledged_route_is_lost_and_traffic_is_back_within_two_seconds(binary):
    folder = FOLDER / "kill-loop"
    folder.mkdir()
    lines = run(binary, folder, ROUNDS, random.randrange(1_000_000), print, started=started_by_tests.add)
    print("\n".join(lines))
