"""Made-up histories. Each kind of wrong one must be found wrong, and what is merely unlucky must not."""

import itertools
import random

import checker
import pytest
from history import ABSENT, DONE, FOREVER, NEVER, PERHAPS, Call, Look

R = "/user/jane"


def put(value, start, end, outcome=DONE, route=R, fresh=True, over=None, status=None):
    status = status if status is not None else 201 if outcome == DONE else 503
    over = end if over is None else over
    return Call(route, "put", value, status, outcome, start, end, 0, None, fresh and outcome == DONE, over)


def delete(start, end, existed=True, outcome=DONE, route=R):
    status = (204 if existed else 404) if outcome == DONE else 503
    return Call(route, "delete", None, status, outcome, start, end, 0, existed, outcome == DONE, end)


def get(value, start, end, route=R):
    return Call(route, "get", value, 200 if value else 404, DONE, start, end, 0, over=end)


def look(value, start, end, ready=True, status=200, where="traefik-0", route=R):
    return Look(where, route, value, status, start, end, ready)


def kinds(found):
    return sorted({violation.kind for violation in found})


GOOD = {
    "one after the other": [put("a", 0, 1), get("a", 2, 3), put("b", 4, 5), get("b", 6, 7), delete(8, 9), get(None, 10, 11)],
    "a get during a put sees either": [put("a", 0, 1), put("b", 2, 6), get("a", 3, 4), get("b", 4.5, 5)],
    "a delete of nothing": [delete(0, 1, existed=False), put("a", 2, 3), delete(4, 5), delete(6, 7, existed=False)],
    "two puts at once, in either order": [put("a", 0, 5), put("b", 0, 5), get("a", 6, 7)],
    "nobody knows, and it happened": [put("a", 0, 1, PERHAPS), get("a", 2, 3)],
    "nobody knows, and it did not happen": [put("a", 0, 1), put("b", 2, 3, PERHAPS), get("a", 4, 5), get("a", 6, 7)],
    "nobody knows, and it happens late": [put("a", 0, 1), put("b", 2, 3, PERHAPS), get("a", 4, 5), get("b", 6, 7)],
    "a call without an answer happens whenever its replica likes": [
        put("a", 0, 1), put("b", 2, 3, PERHAPS, over=FOREVER), put("c", 4, 5), get("c", 6, 7), get("b", 8, 9),
    ],
    "the answer of the first delete got lost": [put("a", 0, 1), delete(2, 3, outcome=PERHAPS), delete(4, 5, existed=False)],
    "refused, so it never happened": [put("a", 0, 1), put("b", 2, 3, NEVER), get("a", 4, 5)],
}  # fmt: skip

BAD = {
    "lost: acknowledged and not there": [put("a", 0, 1), get(None, 2, 3)],
    "lost: the older one is there": [put("a", 0, 1), put("b", 2, 3), get("a", 4, 5)],
    "resurrected: deleted and there": [put("a", 0, 1), delete(2, 3), get("a", 4, 5)],
    "never written by anybody": [put("a", 0, 1), get("z", 2, 3)],
    "seen before it was written": [get("a", 0, 1), put("a", 2, 3)],
    "it goes there and back": [put("a", 0, 1), put("b", 2, 9), get("b", 3, 4), get("a", 5, 6)],
    "refused, and it happened": [put("a", 0, 1), put("b", 2, 3, NEVER), get("b", 4, 5)],
    "the delete found nothing, though something was there": [put("a", 0, 1), delete(2, 3, existed=False)],
    "the delete found something, though nothing was there": [delete(0, 1, existed=True)],
    "deleted twice": [put("a", 0, 1), delete(2, 3), delete(4, 5, existed=True)],
    "it failed, and comes after the next answered delete": [
        put("a", 0, 1), put("b", 2, 3, PERHAPS), delete(4, 5), get("b", 6, 7),
    ],
    "it failed, and comes after the next answered change": [
        put("a", 0, 1), put("b", 2, 3, PERHAPS), put("c", 4, 5), get("c", 6, 7), get("b", 8, 9),
    ],
    "happened twice": [put("a", 0, 1, PERHAPS), get("a", 2, 3), put("b", 4, 5), get("b", 6, 7), get("a", 8, 9)],
}  # fmt: skip


@pytest.mark.parametrize("calls", GOOD.values(), ids=GOOD)
def test_what_can_be_explained(calls):
    assert checker.linearizable(calls, {}) == []


@pytest.mark.parametrize("calls", BAD.values(), ids=BAD)
def test_what_can_not(calls):
    assert kinds(checker.linearizable(calls, {})) == ["not linearizable"]


def test_a_change_of_another_route_makes_void_what_failed():
    calls = [put("a", 0, 1), put("b", 2, 3, PERHAPS), put("x", 4, 5, route="/other"), get("a", 6, 7), get("b", 8, 9)]
    assert kinds(checker.linearizable(calls, {})) == ["not linearizable"]
    # An identical POST writes nothing, and so makes nothing void.
    calls[2] = put("x", 4, 5, route="/other", fresh=False)
    assert checker.linearizable(calls, {}) == []
    # Nor does one that had begun before the call failed.
    calls[2] = put("x", 2.5, 5, route="/other")
    assert checker.linearizable(calls, {}) == []


def test_the_state_at_the_begin_counts():
    assert checker.linearizable([get("a", 0, 1)], {R: "a"}) == []
    assert kinds(checker.linearizable([get("b", 0, 1)], {R: "a"})) == ["not linearizable"]


def every_order(calls, initial):
    """The same question, answered by trying everything."""
    sure = [c for c in calls if c.outcome == DONE]
    perhaps = [c for c in calls if c.outcome == PERHAPS]
    limits = checker.voids(calls)
    for size in range(len(perhaps) + 1):
        for some in itertools.combinations(perhaps, size):
            for order in itertools.permutations(sure + list(some)):
                if fits(order, limits, initial):
                    return True
    return False


def fits(order, limits, state):
    now = head = 0.0
    for call in order:
        now = max(now, call.start)
        if limits[id(call)] < now or (call.outcome == PERHAPS and call.over < head):
            return False
        if call.writes_head:
            head = max(head, call.start)
        if call.kind == "get" and call.value != state:
            return False
        if call.kind == "delete" and call.outcome == DONE and call.existed != (state is not ABSENT):
            return False
        state = call.value if call.kind == "put" else ABSENT if call.kind == "delete" else state
    return True


def test_the_search_agrees_with_trying_every_order():
    chance = random.Random(11)
    verdicts = {True: 0, False: 0}
    for _ in range(4000):
        calls = []
        for number in range(chance.randrange(2, 6)):
            start = chance.uniform(0, 10)
            end = start + chance.uniform(0.1, 5)
            kind = chance.choice(["put", "put", "perhaps", "delete", "lost delete", "get", "get"])
            if kind == "put":
                calls.append(put(f"v{number}", start, end, fresh=chance.random() < 0.8))
            elif kind == "perhaps":
                calls.append(put(f"v{number}", start, end, PERHAPS, over=chance.choice([end, end, FOREVER])))
            elif kind == "delete":
                calls.append(delete(start, end, existed=chance.random() < 0.5))
            elif kind == "lost delete":
                calls.append(delete(start, end, outcome=PERHAPS))
            else:
                calls.append(get(chance.choice([None, "v0", "v1", "v2"]), start, end))
        expected = every_order(calls, ABSENT)
        assert (checker.linearizable(calls, {}) == []) == expected, calls
        verdicts[expected] += 1
    assert min(verdicts.values()) > 500, verdicts


def test_a_long_history_is_searched_in_no_time():
    """Hundreds of overlapping calls, made by a machine that is right; then one answer is exchanged."""
    chance = random.Random(7)
    state, now, calls = ABSENT, 0.0, []
    for number in range(400):
        now += 1
        start, end = now - chance.uniform(0, 3), now + chance.uniform(0, 3)
        what = chance.random()
        if what < 0.4:
            state = f"v{number}"
            calls.append(put(state, start, end, DONE if chance.random() < 0.9 else PERHAPS))
        elif what < 0.6:
            calls.append(delete(start, end, existed=state is not ABSENT))
            state = ABSENT
        else:
            calls.append(get(state, start, end))
    assert checker.linearizable(calls, {}) == []
    last = max((c for c in calls if c.kind == "get"), key=lambda c: c.start)
    last.value = "v1" if last.value != "v1" else "v2"
    assert kinds(checker.linearizable(calls, {})) == ["not linearizable"]


@pytest.mark.parametrize(
    "calls, seen, expected",
    [
        pytest.param([put("a", 0, 1), put("b", 2, 3)], look("a", 4, 5), ["stale"], id="overwritten"),
        pytest.param([put("a", 0, 1), put("b", 2, 3)], look("b", 4, 5), [], id="the new one"),
        pytest.param([put("a", 0, 1), put("b", 2, 4.5)], look("a", 4, 5), [], id="not yet acknowledged when it began"),
        pytest.param([put("a", 0, 1), put("b", 2, 9)], look("b", 4, 5), [], id="newer than what is acknowledged"),
        pytest.param([put("a", 0, 1), delete(2, 3)], look("a", 4, 5), ["stale"], id="deleted and served"),
        pytest.param([put("a", 0, 1)], look(None, 4, 5), ["stale"], id="acknowledged and not served"),
        pytest.param([put("a", 0, 1), delete(2, 3)], look(None, 4, 5), [], id="deleted and gone"),
        pytest.param([put("a", 0, 1)], look("z", 4, 5), ["wrong"], id="nobody's"),
        pytest.param([put("a", 6, 7)], look("a", 4, 5), ["wrong"], id="served before it was asked for"),
        pytest.param([put("a", 0, 3), put("b", 0, 3)], look("a", 4, 5), [], id="either of two at once"),
        pytest.param([put("a", 0, 1), put("b", 2, 3, PERHAPS)], look("b", 4, 5), [], id="nobody knows, and it came"),
        pytest.param([put("a", 0, 1), put("b", 2, 3, PERHAPS)], look("a", 4, 5), [], id="nobody knows, and it didn't"),
        pytest.param(
            [put("b", 2, 3, PERHAPS), put("c", 4, 5)], look("b", 6, 7), ["stale"], id="failed, void, and served"
        ),
        pytest.param([delete(2, 3, existed=False)], look("a", 4, 5), ["stale"], id="a 404 to a DELETE is a promise too"),
        pytest.param([put("a", 0, 1), put("b", 2, 3)], look("a", 4, 5, ready=False), [], id="not ready: no promise"),
        pytest.param([put("a", 0, 1)], look(None, 4, 5, status=503), [], id="a failure is no state"),
    ],
)
def test_what_a_ready_traefik_may_serve(calls, seen, expected):
    assert kinds(checker.stale(calls, [seen], {R: "a"} if calls[0].kind == "delete" else {})) == expected


def test_no_4xx():
    assert kinds(checker.client_errors([put("a", 0, 1, PERHAPS, status=409)])) == ["4xx"]
    assert kinds(checker.client_errors([put("a", 0, 1, PERHAPS, status=404)])) == ["4xx"]
    assert checker.client_errors([put("a", 0, 1, PERHAPS), get(None, 2, 3), delete(4, 5, existed=False)]) == []


def test_at_rest_all_agree():
    tables = {"pointsman-0": {R: "a"}, "pointsman-1": {R: "a"}}
    assert checker.agreement(tables, {"traefik-0": {R: "a", "/gone": None}}) == []
    assert kinds(checker.agreement({**tables, "pointsman-1": {}}, {})) == ["replicas differ"]
    assert kinds(checker.agreement(tables, {"traefik-0": {R: "b"}})) == ["not served"]
    assert kinds(checker.agreement(tables, {"traefik-0": {"/gone": "a"}})) == ["not served"]
    assert kinds(checker.agreement(tables, {"traefik-0": {R: "status 503"}})) == ["not served"]


def test_failed_requests():
    failed = look(None, 4, 5, status=502)
    assert checker.failed_looks([failed], []) == [failed]
    assert checker.failed_looks([look("a", 4, 5)], []) == []
    # It was under way in a Traefik that was killed, or sent there before the balancer knew.
    assert checker.failed_looks([failed], [(4.5, 4.6)]) == []
    assert checker.failed_looks([failed], [(3.9, 4.1)]) == []
    assert checker.failed_looks([failed], [(3, 3.5), (5.5, 6)]) == [failed]


def test_a_machine_that_is_slow_everywhere():
    quick = [look("a", 0, 0.1, where=f"traefik-{n}") for n in range(3)]
    assert checker.slowness(quick) == pytest.approx(0.1)
    one = look("a", 0, 3, where="traefik-1")
    assert checker.slowness([*quick, one]) == pytest.approx(0.1)
    assert checker.slowness([look("a", 0, 2, where=f"traefik-{n}") for n in range(2)] + [one]) == 2
    assert checker.slowness([]) == 0


def test_the_longest_time_without_a_change():
    calls = [put("a", 0, 1), get("a", 2, 5), put("b", 7, 8), put("c", 8, 8.5, PERHAPS)]
    assert checker.longest_gap(calls, 0, 10) == (7, 1)
    assert checker.longest_gap([], 2, 5) == (3, 2)
