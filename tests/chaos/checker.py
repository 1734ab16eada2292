"""Judges a history. Pure: no clock, no network. What it must find is in `test_checker.py`.

- **Linearizable, route by route**: some order of the calls, each at one moment between its begin and its end, explains
  every answer (the search of Wing and Gong, with what was visited remembered). A call of which nobody knows whether it
  happened may have happened at any moment until it is void, or never.
- **Void**: a call that failed may take effect until another one that writes the head, and that began after the failure,
  is answered (docs/protocol.md, "What comes late"). A call that got no answer at all may be at work for as long as its
  replica lives.
- **Never stale**: a request that begins after a change was acknowledged, through a Traefik that is ready, isn't answered
  by what was before it.
"""

from collections import defaultdict

from history import ABSENT, DONE, FOREVER, NEVER, PERHAPS, Violation

# The search of one route is given up beyond this many states; a run is some hundred calls.
STATES_MAX = 2_000_000


def voids(calls):
    """For each call by its `id()`, until when it may take effect."""
    heads = sorted((c.start, c.end) for c in calls if c.outcome == DONE and c.writes_head)
    # For each begin, the earliest end of what begins then or later.
    earliest, ends = FOREVER, []
    for start, end in reversed(heads):
        earliest = min(earliest, end)
        ends.append((start, earliest))
    ends.reverse()
    starts = [start for start, _ in ends]
    limits = {}
    for call in calls:
        if call.outcome == DONE:
            limits[id(call)] = call.end
        elif call.over == FOREVER:
            limits[id(call)] = FOREVER
        else:
            at = _first_after(starts, call.over)
            limits[id(call)] = ends[at][1] if at < len(ends) else FOREVER
    return limits


def _first_after(sorted_numbers, number):
    low, high = 0, len(sorted_numbers)
    while low < high:
        middle = (low + high) // 2
        if sorted_numbers[middle] > number:
            high = middle
        else:
            low = middle + 1
    return low


def by_route(items):
    groups = defaultdict(list)
    for each in items:
        groups[each.route].append(each)
    return groups


def _step(call, state):
    """The state after a call, or `_step` itself if the call can't have been answered like that."""
    if call.kind == "put":
        return call.value
    if call.kind == "delete":
        if call.outcome == DONE and call.existed != (state is not ABSENT):
            return _step
        return ABSENT
    return state if call.value == state else _step


def explain(calls, limits, initial):
    """None if the calls of one route can be put in an order; else the calls at which the search got stuck."""
    calls = [c for c in calls if c.outcome != NEVER and not (c.kind == "get" and c.outcome != DONE)]
    calls.sort(key=lambda c: c.start)
    must = sum(1 << at for at, c in enumerate(calls) if c.outcome == DONE)
    seen = set()
    # What is done, the state, the latest begin of what is done, and that of what has written the head.
    stack = [(0, initial, 0.0, 0.0)]
    best, stuck = -1, []
    while stack:
        done, state, now, head = stack.pop()
        if done & must == must:
            return None
        # Of those that begin by the time at which one that must be ends, each may be the next.
        horizon, open_calls = FOREVER, []
        at = (~done & (done + 1)).bit_length() - 1
        while at < len(calls) and calls[at].start <= horizon:
            call = calls[at]
            if not done >> at & 1:
                if call.outcome == DONE:
                    horizon = min(horizon, call.end)
                elif limits[id(call)] < now or call.over < head:
                    # Void by time, or by a call of this same route that wrote the head: it never happened.
                    done |= 1 << at
                    at += 1
                    continue
                open_calls.append((at, call))
            at += 1
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if len(seen) > STATES_MAX:
            raise RuntimeError("too many states; make the run shorter")
        open_calls = [(at, call) for at, call in open_calls if call.start <= horizon]
        nexts, rushed = [], FOREVER
        for at, call in open_calls:
            after = _step(call, state)
            if after is _step:
                continue
            if call.outcome == PERHAPS:
                rushed = min(rushed, limits[id(call)])
            following = done | 1 << at, after, max(now, call.start), max(head, call.start if call.writes_head else 0)
            nexts.append((call, following))
        # A get that fits changes nothing, so nothing is lost by taking it at once, unless something gets late by it.
        fitting = [following for call, following in nexts if call.kind == "get" and call.start <= rushed]
        if fitting:
            stack.append(fitting[0])
            continue
        count = bin(done & must).count("1")
        if count > best:
            best = count
            stuck = [call for _, call in open_calls], state
        # What must be is tried before what perhaps was.
        nexts.sort(key=lambda each: each[0].outcome == DONE)
        stack.extend(following for _, following in nexts)
    return stuck


def _tell(call):
    what = {"put": f"put {call.value}", "delete": "delete", "get": f"get -> {call.value}"}[call.kind]
    return f"    {call.start:.3f}..{call.end:.3f} replica {call.replica}: {what} -> {call.status} ({call.outcome})"


def linearizable(calls, initial):
    """One violation for each route whose calls can't be explained."""
    limits = voids(calls)
    found = []
    for route, group in sorted(by_route(calls).items()):
        stuck = explain(group, limits, initial.get(route, ABSENT))
        if stuck is not None:
            left, state = stuck
            lines = "\n".join(_tell(c) for c in left[:12])
            found.append(Violation("not linearizable", f"{route}: from the state {state} none of these fits:\n{lines}"))
    return found


def stale(calls, looks, initial):
    """One violation for each request, through a ready Traefik, that was answered by an overwritten state."""
    limits = voids(calls)
    writes = {
        route: [c for c in group if c.kind != "get" and c.outcome != NEVER] for route, group in by_route(calls).items()
    }
    found = []
    for look in looks:
        if not look.ready or look.status != 200:
            continue
        own = writes.get(look.route, [])
        # Who could have written what was seen.
        sources = [c for c in own if c.start < look.end and (c.value if c.kind == "put" else ABSENT) == look.value]
        from_before = initial.get(look.route, ABSENT) == look.value
        where = f"{look.where} {look.start:.3f}..{look.end:.3f} {look.route} was served by {look.value}"
        if not sources and not from_before:
            found.append(Violation("wrong", f"{where}, which nobody had written"))
            continue
        acknowledged = [c for c in own if c.outcome == DONE and c.end < look.start]
        if not acknowledged:
            continue
        newest = max(acknowledged, key=lambda c: c.start)
        newest_head = max((c.start for c in acknowledged if c.writes_head), default=-FOREVER)
        if all(
            limits[id(c)] < newest.start or (c.outcome == PERHAPS and c.over < newest_head) for c in sources
        ):
            found.append(Violation("stale", f"{where}, although this was acknowledged before:\n{_tell(newest)}"))
    return found


def client_errors(calls):
    """A passing fault is never a 4xx: no call here has anything wrong with it. 404 is an answer."""
    return [
        Violation("4xx", f"{call.route}:\n{_tell(call)}")
        for call in calls
        if isinstance(call.status, int) and 400 <= call.status < 500 and call.status != 404
    ] + [
        Violation("4xx", f"{call.route}:\n{_tell(call)}") for call in calls if call.kind == "put" and call.status == 404
    ]


def agreement(tables, served):
    """At rest: every replica lists the same, and every Traefik serves it. Tables and what is served, by name."""
    found = []
    (first, table), *others = sorted(tables.items())
    for name, other in others:
        differs = sorted(route for route in {*table, *other} if table.get(route) != other.get(route))
        if differs:
            what = ", ".join(f"{r}: {table.get(r)} and {other.get(r)}" for r in differs[:5])
            found.append(Violation("replicas differ", f"{first} and {name} at rest: {what}"))
    for name, seen in sorted(served.items()):
        differs = sorted(route for route in seen if seen[route] != table.get(route))
        if differs:
            what = ", ".join(f"{r}: listed {table.get(r)}, served {seen[r]}" for r in differs[:5])
            found.append(Violation("not served", f"{name} at rest: {what}"))
    return found


def failed_looks(looks, kills, ready_only=True):
    """Requests that failed although a ready Traefik should have answered; not those under way in a killed Traefik.

    `kills` are pairs of times: when a Traefik was being killed, and from when on the balancer knew.
    """
    return [
        look
        for look in looks
        if look.status != 200
        and (look.ready or not ready_only)
        and not any(look.start <= known and look.end >= begin for begin, known in kills)
    ]


def slowness(looks):
    """How long the slowest request took through that Traefik which had the shortest such one, in seconds.

    No fault hits all Traefiks at once and lets them answer later, so what is slow everywhere is the machine.
    """
    worst = {}
    for look in looks:
        if look.where != "users" and look.status == 200:
            worst[look.where] = max(worst.get(look.where, 0.0), look.end - look.start)
    return min(worst.values(), default=0.0)


def longest_gap(calls, begin, end):
    """How long no change at all was acknowledged, in seconds; and after which moment."""
    times = sorted(c.end for c in calls if c.kind != "get" and c.outcome == DONE and begin <= c.end <= end)
    points = [begin, *times, end]
    return max(((later - earlier, earlier) for earlier, later in zip(points, points[1:])), default=(0.0, begin))
