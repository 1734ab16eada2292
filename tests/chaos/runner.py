"""One run: load, faults, healing, and the judgement."""

import asyncio
import random
import time
import traceback
from dataclasses import dataclass, field

import checker
from etcd import make_room
from faults import REGISTRY
from history import ABSENT, History, Violation
from traffic import ROOT, ROUTES, SOCKETS, Traffic
from world import EACH, World, WorldFailed, until

STEADY_SECONDS = (0.6, 1.4)
GAP_SECONDS_MAX = 5.0  # one process killed: writes go on within this time
# The balancer is told within moments that a process has ended; what was sent until then is under way in it.
PUBLISH_SECONDS = 0.5
# If requests take longer than this through every Traefik, the machine is too busy for what is promised in seconds.
SLOWNESS_SECONDS_MAX = 0.7
TIMED = ("slow recovery", "writes stood still", "failed requests")
WELL_SECONDS_MAX = 60


@dataclass
class Result:
    """What came of one run."""

    seed: int
    faults: list
    calls: int = 0
    unknown: int = 0
    looks: int = 0
    recovery: float = 0.0
    gap: float = 0.0
    failed: int = 0  # requests of users that a ready Traefik should have answered
    operations: dict = field(default_factory=dict)
    seconds: float = 0.0
    violations: list = field(default_factory=list)
    busy: bool = False  # the machine was: what is promised in seconds was not judged
    history: History = None


def choose(seed, names):
    """The faults of a seed: names only, the rest is drawn by each."""
    chance = random.Random(f"faults {seed}")
    pool = [REGISTRY[name] for name in sorted(names)]
    first = chance.choices(pool, [f.weight for f in pool])[0]
    if first.alone:
        return [first], chance
    others = [f for f in pool if not f.alone and not f.slow and f is not first]
    if first.slow:
        others = []
    count = min(chance.choices((0, 1, 2), (6, 3, 1))[0], len(others))
    return [first] + chance.sample(others, count), chance


class Runner:
    """Runs on one world, one after the other."""

    def __init__(self, world, seed):
        self.world = world
        self.history = History()
        self.traffic = Traffic(world, self.history, seed)
        self.initial = {}

    async def start(self):
        """The first routes; then all must be well."""
        traffic = self.traffic
        await until("the root is set", lambda: traffic.put(ROOT), 40)
        await traffic.put(SOCKETS)
        await self.well(60)
        traffic.working.set()
        traffic.looking.set()
        traffic.start()
        violations = []
        await self.rest_and_read(violations)
        if violations:
            raise WorldFailed(f"not well from the start: {violations[0].text}")
        self.initial = dict(self.table)

    async def well(self, seconds=WELL_SECONDS_MAX):
        """Every replica acknowledges a change, and every Traefik is ready and serves it. Gives the seconds it took."""
        began = time.monotonic()

        async def one(replica):
            route = f"/chaos/probe{replica}"

            async def acknowledged():
                value = self.traffic.values.next(route)
                entry = await self.traffic.call("put", route, replica, value, fresh=True)
                if entry.outcome != "done":
                    raise RuntimeError(f"replica {replica} answers {entry.status}")
                return value

            value = await until(f"replica {replica} acknowledges a change", acknowledged, seconds, 0.1)
            for n in EACH:

                async def served():
                    if not self.world.probes[n].ready:
                        raise RuntimeError(f"traefik-{n} is not ready: {self.world.probes[n].last}")
                    return await self.traffic.served(n, route) == value

                await until(f"traefik-{n} is ready and serves it", served, seconds, 0.1)

        await asyncio.gather(*(one(n) for n in EACH))
        took = time.monotonic() - began
        await self.world.pointsman_well(seconds)
        return took

    async def run(self, seed, names, number=None):
        """One run. With a `number`, the fault hits that one of the three."""
        self.history = self.traffic.history = History()
        self.traffic.unanswered.clear()
        self.traffic.failed_operations.clear()
        self.world.kills.clear()
        began = time.monotonic()
        classes, chance = choose(seed, names)
        faults = [cls(self.world, self.traffic, chance) for cls in classes]
        if number is not None:
            faults[0].number = number
        tries = dict(self.traffic.operations)
        result = Result(seed, [f.name for f in faults], history=self.history)
        try:
            await make_room(self.world)
            await self.traffic.open_sockets()
            self.traffic.working.set()
            await asyncio.sleep(chance.uniform(*STEADY_SECONDS))
            disturbed = time.monotonic()
            await asyncio.gather(*(self._inflict(fault, chance.uniform(0, 0.8)) for fault in faults))
            result.faults = [f.tell() for f in faults]
            result.recovery = await self.well()
            healed = time.monotonic()
            await asyncio.sleep(0.3)
            await self.rest_and_read(result.violations)
            if any(f.may_lose for f in faults):
                await self.second_half(result)
            self.judge(result, faults, disturbed, healed)
            result.operations = {name: self.traffic.operations[name] - tries[name] for name in tries}
            for fault in faults:
                await fault.clean()
        except WorldFailed as why:
            result.faults = [f.tell() for f in faults]
            self.traffic.settle_unanswered(self.world.kills, time.monotonic())
            result.violations.append(Violation("no recovery", str(why)))
        except Exception:  # a fault that can't be done, or a defect of the rig: it must not end the other runs
            result.violations.append(Violation("rig", traceback.format_exc()))
        result.violations += [Violation("died", text) for text in self.world.dead()]
        result.seconds = time.monotonic() - began
        return result

    def note(self, text):
        self.history.events.append((time.monotonic(), text))

    async def _inflict(self, fault, after):
        await asyncio.sleep(after)
        self.note(f"inject {fault.tell()}")
        await fault.inject()
        self.note(f"holds {fault.tell()}")
        await asyncio.sleep(fault.seconds)
        self.note(f"heal {fault.tell()}")
        await fault.heal()
        self.note(f"healed {fault.tell()}")

    async def rest_and_read(self, violations):
        """Writers rest; every replica is read, and every Traefik must serve what they say."""
        traffic = self.traffic
        if not await traffic.rest():
            violations.append(Violation("hanging", "a writer got no answer for 40 s"))
        # A delete of nothing writes the head: what was late until now comes no more.
        await traffic.persist("delete", "/chaos/nothing")
        tables = {}
        for n in EACH:
            tables[f"pointsman-{n}"] = await until(f"replica {n} lists", lambda: traffic.list(n), 20, 0.1)
        table = tables["pointsman-0"]
        routes = [*ROUTES, ROOT, SOCKETS]
        served = {}
        for n in EACH:
            for route in routes:
                deadline = time.monotonic() + 5
                while True:
                    seen = await traffic.served(n, route)
                    if seen == table.get(route, ABSENT) or time.monotonic() > deadline:
                        break
                    await asyncio.sleep(0.1)
                served.setdefault(f"traefik-{n}", {})[route] = seen
        violations += checker.agreement(tables, served)
        self.table = {route: table.get(route, ABSENT) for route in {*routes, *table}}
        traffic.known.update(self.table)

    async def second_half(self, result):
        """What was acknowledged before the restore may be gone; from here on every promise counts again."""
        first = self.history
        self.history = self.traffic.history = History()
        self.traffic.unanswered.clear()
        self.initial = dict(self.table)
        self.traffic.working.set()
        await asyncio.sleep(1.5)
        await self.rest_and_read(result.violations)
        second, self.history = self.history, first
        self.traffic.settle_unanswered([], time.monotonic())
        result.violations += checker.linearizable(second.calls, self.initial)
        result.violations += checker.stale(second.calls, second.looks, self.initial)
        for name in ("calls", "looks", "events"):
            getattr(first, name).extend(getattr(second, name))

    def judge(self, result, faults, disturbed, healed):
        """Everything that the history says."""
        history, kills = self.history, self.world.kills
        now = time.monotonic()
        self.traffic.settle_unanswered(kills, now)
        calls, looks = history.calls, history.looks
        found = result.violations
        found += checker.client_errors(calls)
        if not any(f.may_lose for f in faults):
            found += checker.linearizable(calls, self.initial)
            found += checker.stale(calls, looks, self.initial)
        self.initial = dict(self.table)
        limit = max(f.recovery_max for f in faults)
        if result.recovery > limit:
            found.append(Violation("slow recovery", f"{result.recovery:.1f} s, promised are {limit:.0f} s"))
        traefik_kills = [(begin, known + PUBLISH_SECONDS) for kind, _, begin, known in kills if kind == "traefik"]
        failed = checker.failed_looks([look for look in looks if look.where == "users"], traefik_kills)
        result.failed = len(failed)
        if failed and not any(f.users_suffer for f in faults):
            first = failed[0]
            text = f"{len(failed)} of users through the balancer; first at {first.start:.3f}..{first.end:.3f}: "
            found.append(Violation("failed requests", text + f"{first.route} {first.status}"))
        gap, after = checker.longest_gap(calls, disturbed, healed)
        result.gap = gap
        if len(faults) == 1 and not faults[0].writes_wait and gap > GAP_SECONDS_MAX:
            found.append(Violation("writes stood still", f"for {gap:.1f} s after {after:.3f}"))
        for fault in faults:
            found += [Violation("promise", text) for text in fault.complaints]
            if fault.gap_max and self.world.has_flag(fault.gap_flag) and gap > fault.gap_max:
                found.append(Violation("writes stood still", f"for {gap:.1f} s after {after:.3f}"))
        may_die = set().union(*(f.sockets() for f in faults))
        for n, when in self.traffic.dead_sockets():
            if n not in may_die:
                found.append(Violation("websocket died", f"through traefik-{n} at {when:.3f}"))
        result.calls = len({(c.start, c.end, c.replica) for c in calls if c.outcome == "done"})
        result.unknown = sum(c.outcome == "perhaps" for c in calls)
        result.looks = len(looks)
        if any(f.graceful for f in faults):
            bad = checker.failed_looks(looks, [])
            found += [Violation("failed requests", f"{x.where} {x.route} {x.status} at {x.start:.3f}") for x in bad[:3]]
            found += [Violation("failed operations", text) for text in self.traffic.failed_operations[:3]]
        if any(text.split(": ")[1].startswith("4") for text in self.traffic.failed_operations):
            found.append(Violation("4xx", "; ".join(self.traffic.failed_operations)))
        result.busy = checker.slowness(looks) > SLOWNESS_SECONDS_MAX
        if result.busy:
            result.violations = [v for v in found if v.kind not in TIMED]

    async def close(self):
        await self.traffic.stop()


async def new_world(folder, binary, seed, clock_shim=None):
    """A world that is well, and a runner on it."""
    for _ in range(5):
        world = World(folder, binary, clock_shim=clock_shim)
        try:
            await world.start_links()
            break
        except RuntimeError as why:  # somebody else has taken one of the ports meanwhile
            problem = why
            await world.close()
    else:
        raise WorldFailed(str(problem))
    try:
        await world.start()
        runner = Runner(world, seed)
        await runner.start()
    except BaseException:
        await world.close()
        raise
    return world, runner
