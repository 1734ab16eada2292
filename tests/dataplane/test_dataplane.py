"""The same requests to configurable-http-proxy and to Pointsman; what differs must be in `differences.py`, exactly.

A difference that is not listed fails, and so does a listed one that does not occur.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

import cases  # noqa: F401 (fills the list)
from compare import compared, differing, expected, show
from differences import DIFFERENCES, REASONS
from rig.cases import CASES, GROUPS
from rig.contenders import CONTENDERS, Refused


def parameters():
    """All cases, those of one group in a row: each group needs proxies of its own."""
    groups = list(GROUPS)
    found = []
    for case in sorted(CASES, key=lambda case: groups.index(case.group)):
        marks = [pytest.mark.timeout(case.seconds * 2)]
        if case.slow:
            marks.append(pytest.mark.slow)
        found.append(pytest.param(case, case.group, id=f"{case.group}: {case.name}", marks=marks))
    return found


def observe(case, world):
    """What the case sees of one proxy."""
    if isinstance(world, Refused):
        return {"start": f"refused, {world}"}
    try:
        return {key: show(value) for key, value in case.function(world).items()}
    finally:
        world.clean()


@pytest.mark.parametrize("case,pair", parameters(), indirect=["pair"])
def test_same_requests(case, pair):
    worlds = [pair.world(name) for name in CONTENDERS]
    with ThreadPoolExecutor(len(worlds) if case.at_once else 1) as pool:
        seen = dict(zip(CONTENDERS, pool.map(lambda world: observe(case, world), worlds)))
    found = differing(seen["chp"], seen["pointsman"])
    problems = compared(case, found, expected(case))
    assert not problems, "\n" + "\n".join(problems)


def test_every_listed_difference_belongs_to_a_case():
    known = {f"{case.group}: {case.name}" for case in CASES}
    assert len(known) == len(CASES), "two cases have one name"
    strangers = {entry.case for entry in DIFFERENCES} - known
    assert not strangers, f"differences.py lists cases that are not there: {sorted(strangers)}"
    unused = set(REASONS) - {entry.reason for entry in DIFFERENCES}
    assert not unused, f"reasons that no difference has: {sorted(unused)}"
