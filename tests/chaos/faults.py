"""The faults: each a small class that says what it needs, does harm, and undoes it."""

import asyncio
import base64
import os
import shutil
import signal
import struct
import subprocess
import time

from wire import end
from world import EACH, WorldFailed, until

REGISTRY = {}


def register(cls):
    REGISTRY[cls.name] = cls
    return cls


class Fault:
    """One fault of one run. `chance` decides what it hits and how long it holds."""

    name = ""
    what = ""  # a sentence for people
    needs = ()  # root, strace, a C compiler
    slow = False  # it takes more than some ten seconds
    hold = (0.5, 2.5)  # seconds
    recovery_max = 20.0  # seconds from healing until all is well
    alone = False
    # Users of a ready Traefik may see failures (the Traefik itself hangs, or there is none).
    users_suffer = False
    # Writes may be refused for as long as it holds.
    writes_wait = True
    # What was acknowledged before may be gone: only agreement is checked.
    may_lose = False
    # While it holds, a change must be acknowledged within so many seconds, if the Pointsman knows the flag.
    gap_max = None
    gap_flag = None
    weight = 2
    # What it stops is taken out of rotation and finishes what it has: not one request, not one operation may fail.
    graceful = False

    def __init__(self, world, traffic, chance):
        self.world, self.traffic, self.chance = world, traffic, chance
        self.number = chance.randrange(3)
        self.seconds = chance.uniform(*self.hold)
        self.complaints = []  # what it saw itself that breaks a promise

    def tell(self):
        return f"{self.name}({self.number})"

    def sockets(self):
        """Numbers of the Traefiks whose websockets may die by it."""
        return set()

    async def inject(self):
        raise NotImplementedError

    async def heal(self):
        raise NotImplementedError

    async def clean(self):
        """After the run is judged: what must be put in order for the next one."""


# Processes


class Kill(Fault):
    kind = ""
    writes_wait = False

    async def inject(self):
        await self.world.kill(self.kind, self.number)

    async def heal(self):
        await self.world.revive(self.kind, self.number)


@register
class KillEtcd(Kill):
    name, kind = "kill-etcd", "etcd"
    what = "kill -9 of one member of etcd, which is started again"


@register
class KillLeader(Kill):
    name, kind = "kill-etcd-leader", "etcd"
    what = "kill -9 of the member of etcd that leads"

    async def inject(self):
        leader = await self.world.leader()
        self.number = self.number if leader is None else leader
        await super().inject()


@register
class KillTraefik(Kill):
    name, kind = "kill-traefik", "traefik"
    what = "kill -9 of one Traefik, which is started again"

    def sockets(self):
        return {self.number}


@register
class KillPointsman(Kill):
    name, kind = "kill-pointsman", "pointsman"
    what = "kill -9 of one Pointsman, which is started again"


@register
class KillPointsmans(Fault):
    name = "kill-all-pointsmans"
    what = "kill -9 of all three Pointsmans at once"

    def tell(self):
        return self.name

    async def inject(self):
        for n in EACH:
            await self.world.kill("pointsman", n)

    async def heal(self):
        for n in EACH:
            await self.world.revive("pointsman", n)


@register
class RollingRestart(Fault):
    name = "rolling-restart"
    slow = True
    what = "all nine are stopped in good order and started again, each when the one before is well: nobody may notice"
    hold = (0, 0.1)
    alone = True
    weight = 1
    graceful = True

    def tell(self):
        return self.name

    def sockets(self):
        return set(EACH)

    async def inject(self):
        world = self.world
        for n in EACH:
            await world.kill("etcd", n, signal.SIGTERM)
            await world.revive("etcd", n)
            await world.etcd_well(30)
        for n in EACH:
            await world.kill("pointsman", n, signal.SIGTERM)
            await world.revive("pointsman", n)
            await world.pointsman_well()
        for n in EACH:
            # First nobody new comes, and who was on the way has come: as at the end of a pod with a preStop hook.
            await world.probes[n].drain()
            await asyncio.sleep(1)
            await world.kill("traefik", n, signal.SIGTERM)
            await world.revive("traefik", n)
            await until(f"traefik-{n} is ready", lambda n=n: ready(world, n), 30)

    async def heal(self):
        pass


class Stop(Fault):
    kind = ""

    async def inject(self):
        self.world.stop(self.kind, self.number)

    async def heal(self):
        self.world.go_on(self.kind, self.number)


@register
class StopEtcd(Stop):
    name, kind = "stop-etcd", "etcd"
    what = "SIGSTOP and SIGCONT of one member of etcd"
    hold = (1, 3)


@register
class StopEtcdLong(StopEtcd):
    name = "stop-etcd-long"
    slow = True
    what = "SIGSTOP of one member of etcd for long: no Traefik may stay with it"
    hold = (11, 13)
    weight = 1
    gap_max, gap_flag = 5.0, "--laggard"


@register
class StopTraefik(Stop):
    name, kind = "stop-traefik", "traefik"
    what = "SIGSTOP and SIGCONT of one Traefik"
    hold = (1, 3)
    users_suffer = True


@register
class StopTraefikLong(StopTraefik):
    name = "stop-traefik-long"
    slow = True
    what = "SIGSTOP of one Traefik for longer than the laggard's grace: writes have to go on without it"
    hold = (9, 11)
    weight = 1
    gap_max, gap_flag = 9.0, "--laggard"


@register
class StopPointsman(Stop):
    name, kind = "stop-pointsman", "pointsman"
    what = "SIGSTOP and SIGCONT of one Pointsman"
    hold = (1, 4)


# Links


class Cut(Fault):
    """Links in a mode."""

    modes = ("refuse", "hole", "stall", "deaf", "mute", "slow")
    hold = (1, 3.5)

    def __init__(self, world, traffic, chance):
        super().__init__(world, traffic, chance)
        self.mode = chance.choice(self.modes)

    def tell(self):
        return f"{self.name}({self.number} {self.mode})"

    def links(self):
        """Pairs of a link and the process it is cut for, or None for all."""
        raise NotImplementedError

    async def inject(self):
        self.cut = self.links()  # by the process that is there now
        for link, owner in self.cut:
            await self.world.cuts.set(link, self.mode, owner)

    async def heal(self):
        for link, owner in self.cut:
            await self.world.cuts.set(link, "pass", owner)


@register
class CutPointsmanEtcd(Cut):
    name = "cut-pointsman-etcd"
    what = "one Pointsman is cut off from all of etcd"

    def links(self):
        return [(f"pointsman-{self.number}-etcd-{m}", None) for m in EACH]


@register
class CutPointsmanOneEtcd(Cut):
    name = "cut-pointsman-one-etcd"
    what = "all Pointsmans are cut off from one member of etcd"

    def links(self):
        return [(f"pointsman-{n}-etcd-{self.number}", None) for n in EACH]


@register
class CutTraefikEtcd(Cut):
    name = "cut-traefik-etcd"
    what = "one Traefik is cut off from all of etcd"

    def links(self):
        return [(f"traefik-{self.number}-etcd-{m}", None) for m in EACH]


@register
class CutTraefikEtcdLong(CutTraefikEtcd):
    name = "cut-traefik-etcd-long"
    slow = True
    what = "the same for longer than the laggard's grace: it must be withdrawn, and writes go on without it"
    modes = ("refuse", "hole", "stall", "deaf")
    hold = (10, 12)
    weight = 1
    gap_max, gap_flag = 9.0, "--laggard"


@register
class CutPointsmanTraefik(Cut):
    name = "cut-pointsman-traefik"
    what = "one Pointsman is cut off from the API of one Traefik"

    def __init__(self, world, traffic, chance):
        super().__init__(world, traffic, chance)
        self.traefik = chance.randrange(3)
        if self.mode == "refuse":
            # A refusal says that nobody serves there: that would be a lie, and isn't what partitions do.
            self.mode = "hole"

    def links(self):
        return [(f"pointsman-{self.number}-traefik-{self.traefik}", None)]


@register
class CutPages(Cut):
    name = "cut-pages"
    what = "all Traefiks are cut off from the pages of Pointsman"
    modes = ("refuse", "hole", "slow")

    def tell(self):
        return f"{self.name}({self.mode})"

    def links(self):
        return [("pages", None)]


class CutPeers(Cut):
    """One member of etcd from the others, in both directions."""

    def links(self):
        me = self.world.part("etcd", self.number).pid
        return [(f"peer-{self.number}", None)] + [(f"peer-{m}", me) for m in EACH if m != self.number]


@register
class CutEtcdMinority(CutPeers):
    name = "cut-etcd-minority"
    what = "one member of etcd is cut off from the other two, while all clients reach it"


@register
class CutEtcdLeader(CutPeers):
    name = "cut-etcd-leader"
    what = "the leader of etcd is cut off from the other two, while all clients reach it"

    async def inject(self):
        leader = await self.world.leader()
        self.number = self.number if leader is None else leader
        await super().inject()


# etcd's own doings


def b64(text):
    return base64.b64encode(text.encode()).decode()


async def any_etcd(world, path, content, seconds=15):
    """A call of any member that answers."""

    async def call():
        problem = None
        for n in EACH:
            try:
                return [await world.etcd(n, path, content)]
            except (RuntimeError, ValueError) as why:
                problem = why
        raise RuntimeError(f"no member of etcd takes {path}: {problem}")

    return (await until(f"etcd takes {path}", call, seconds, 0.2))[0]


async def compact(world):
    """Throw away all history up to now."""
    revision = await world.revision()
    try:
        await any_etcd(world, "kv/compaction", {"revision": revision, "physical": True}, 3)
    except WorldFailed:
        pass  # somebody was faster, or there is no quorum


@register
class Compact(Fault):
    name = "compact"
    what = "etcd throws its history away, several times, and is defragmented"
    hold = (0.1, 0.5)

    async def inject(self):
        for _ in range(3):
            await compact(self.world)
            await asyncio.sleep(0.2)

    async def heal(self):
        for n in EACH:
            await self.world.etcd(n, "maintenance/defragment", {}, 20)


class CutAndCompact(Cut):
    """A watch that can't be resumed: what it missed is gone."""

    async def inject(self):
        await super().inject()
        await asyncio.sleep(0.7)  # others write meanwhile

    async def heal(self):
        await compact(self.world)
        await super().heal()


@register
class CutPointsmanEtcdCompact(CutAndCompact):
    name = "cut-pointsman-etcd-compact"
    what = "one Pointsman is cut off from etcd, which throws away the history that it missed"
    modes = ("refuse", "hole", "deaf")

    def links(self):
        return [(f"pointsman-{self.number}-etcd-{m}", None) for m in EACH]


@register
class CutTraefikEtcdCompact(CutAndCompact):
    name = "cut-traefik-etcd-compact"
    what = "one Traefik is cut off from etcd, which throws away the history that it missed"
    modes = ("refuse", "hole", "deaf")

    def links(self):
        return [(f"traefik-{self.number}-etcd-{m}", None) for m in EACH]


@register
class SlowEtcd(Fault):
    name = "slow-etcd"
    what = "all members of etcd are stopped for a moment, again and again, one after the other"
    hold = (2, 4)

    def tell(self):
        return self.name

    async def inject(self):
        self.task = asyncio.ensure_future(self._pulse())

    async def _pulse(self):
        n = 0
        while True:
            self.world.stop("etcd", n % 3)
            try:
                await asyncio.sleep(0.25)
            finally:
                self.world.go_on("etcd", n % 3)
            await asyncio.sleep(0.03)
            n += 1

    async def heal(self):
        await end([self.task])


@register
class SlowFsync(Fault):
    name = "slow-fsync"
    what = "each write to disk of two members of etcd takes a third of a second longer"
    needs = ("strace",)
    hold = (2, 4)
    weight = 1

    async def inject(self):
        self.tracers = []
        for n in EACH:
            if n != self.number:
                pid = self.world.part("etcd", n).pid
                words = ["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_exit=300000"]
                self.tracers.append(self.world.helper(f"strace-{n}", ["strace", "-f", "-q", "-o", "/dev/null", *words, "-p", pid]))

    async def heal(self):
        for tracer in self.tracers:
            tracer.stop(5, signal.SIGINT)


@register
class EtcdDown(Fault):
    name = "etcd-down"
    what = "all members of etcd are killed, and later started again: no change is taken, users go on"
    hold = (1, 4)

    def tell(self):
        return self.name

    async def inject(self):
        for n in EACH:
            await self.world.kill("etcd", n)

    async def heal(self):
        for n in EACH:
            await self.world.revive("etcd", n)


class WithoutEtcd(EtcdDown):
    """Things that are restarted while etcd is away."""

    alone = True
    weight = 1
    recovery_max = 30.0

    def tell(self):
        return f"{self.name}({self.number})"

    def sockets(self):
        return {self.number}

    async def serves_again(self, number):
        """The Traefik that lost everything gets ready, and serves what was acknowledged."""
        if not self.world.has_flag("--snapshot-dir"):
            return
        traffic = self.traffic
        steady = [route for route in ("/", "/ws") if traffic.known.get(route)]

        async def ready():
            if not self.world.probes[number].ready:
                raise RuntimeError(f"it is not ready: {self.world.probes[number].last}")
            seen = {route: await traffic.served(number, route) for route in steady}
            if any(seen[route] != traffic.known[route] for route in steady):
                raise RuntimeError(f"it serves {seen}")
            return True

        try:
            await until(f"traefik-{number}, restarted without etcd, serves by the fallback", ready, 20, 0.1)
        except WorldFailed as why:
            self.complaints.append(str(why))


@register
class TraefikWithoutEtcd(WithoutEtcd):
    name = "traefik-without-etcd"
    what = "a Traefik is killed and started again while all of etcd is down: it must get its routes from Pointsman"
    hold = (0.5, 2)

    async def inject(self):
        await super().inject()
        await asyncio.sleep(0.3)
        await self.world.kill("traefik", self.number)
        await self.world.revive("traefik", self.number)
        await self.serves_again(self.number)


@register
class AllWithoutEtcd(WithoutEtcd):
    name = "all-without-etcd"
    what = "all Pointsmans and a Traefik are killed and started again while all of etcd is down: the snapshot must serve"
    hold = (0.5, 2)

    async def inject(self):
        await super().inject()
        for n in EACH:
            await self.world.kill("pointsman", n)
        await self.world.kill("traefik", self.number)
        for n in EACH:
            await self.world.revive("pointsman", n)
        await self.world.revive("traefik", self.number)
        await self.serves_again(self.number)


@register
class RestartTraefiks(Fault):
    name = "restart-traefiks"
    what = "all Traefiks are killed and started again, each when the one before is ready"
    hold = (0, 0.1)
    alone = True

    def tell(self):
        return self.name

    def sockets(self):
        return set(EACH)

    async def inject(self):
        for n in EACH:
            await self.world.kill("traefik", n)
            await asyncio.sleep(0.2)
            await self.world.revive("traefik", n)
            await until(f"traefik-{n} is ready", lambda n=n: ready(self.world, n), 30)

    async def heal(self):
        pass


async def ready(world, n):
    return world.probes[n].ready


@register
class ReplaceMember(Fault):
    name = "replace-etcd-member"
    what = "a member of etcd is removed, loses its data, and is added anew"
    hold = (0.5, 1.5)
    alone = True
    weight = 1
    recovery_max = 30.0

    async def inject(self):
        world, n = self.world, self.number
        others = [m for m in EACH if m != n]
        await world.kill("etcd", n)
        members = (await world.etcd(others[0], "cluster/member/list"))["members"]
        number = next(each["ID"] for each in members if each.get("name") == f"etcd-{n}")
        await self._reconfigure("cluster/member/remove", {"ID": number}, others)
        world.replace_etcd_data(n)
        url = world.url(f"peer-{n}")
        await self._reconfigure("cluster/member/add", {"peerURLs": [url]}, others)

    async def _reconfigure(self, path, content, members):
        """etcd refuses while it doesn't feel well, so ask again."""

        async def call():
            problem = None
            for m in members:
                try:
                    await self.world.etcd(m, path, content)
                    return True
                except (RuntimeError, ValueError) as why:
                    problem = why
                    if "member not found" in str(why) or "Peer URLs already exists" in str(why):
                        return True
            raise RuntimeError(str(problem))

        await until(f"etcd takes {path}", call, 20, 0.3)

    async def heal(self):
        child = self.world.part("etcd", self.number)
        child.command[child.command.index("--initial-cluster-state") + 1] = "existing"
        await self.world.revive("etcd", self.number)
        await self.world.etcd_well(30)


@register
class NoSpace(Fault):
    name = "nospace"
    what = "etcd reaches its quota and raises NOSPACE; then room is made, and the alarm disarmed"
    hold = (0.5, 2)
    alone = True
    weight = 1
    recovery_max = 30.0

    def tell(self):
        return self.name

    async def inject(self):
        filler = base64.b64encode(os.urandom(1 << 20)).decode()
        for number in range(80):
            try:
                await self.world.etcd(number % 3, "kv/put", {"key": b64(f"chaos/fill/{number}"), "value": filler})
            except RuntimeError as why:
                if "space exceeded" in str(why):
                    return
        raise WorldFailed("etcd took 80 MB without an alarm")

    async def heal(self):
        world = self.world
        await any_etcd(world, "kv/deleterange", {"key": b64("chaos/fill/"), "range_end": b64("chaos/fill0")})
        await compact(world)
        for n in EACH:
            await world.etcd(n, "maintenance/defragment", {}, 20)
        alarms = await any_etcd(world, "maintenance/alarm", {"action": "GET"})
        for alarm in alarms.get("alarms", []):
            await any_etcd(world, "maintenance/alarm", {**alarm, "action": "DEACTIVATE"})


class BackInTime(Fault):
    """All of etcd stops, and starts with other data. What was acknowledged may be gone; all must agree again."""

    alone = True
    weight = 1
    may_lose = True
    slow = True
    users_suffer = True
    recovery_max = 45.0
    hold = (0.2, 1)

    def tell(self):
        return self.name

    async def stop_etcd(self):
        for n in EACH:
            await self.world.kill("etcd", n)

    async def start_etcd(self):
        for n in EACH:
            await self.world.revive("etcd", n)
        await self.world.etcd_well(30)

    async def heal(self):
        await self.start_etcd()
        # As the hub's next check does.
        await self.traffic.fix()


@register
class Restore(BackInTime):
    name = "restore-etcd"
    what = "all of etcd goes back to the data that it had some seconds ago, with lower revisions"

    async def inject(self):
        world = self.world
        await self.stop_etcd()
        kept = world.folder / "etcd-kept"
        shutil.rmtree(kept, ignore_errors=True)
        for n in EACH:
            copy(world.data(n), kept / str(n))
        await self.start_etcd()
        await asyncio.sleep(self.chance.uniform(1, 3))  # this is what will be lost
        await self.stop_etcd()
        for n in EACH:
            world.replace_etcd_data(n)
            os.rename(kept / str(n), world.data(n))


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--sparse=always", str(source), str(target)], check=True)


@register
class Wipe(BackInTime):
    name = "wipe-etcd"
    what = "all of etcd loses its data and begins anew"

    async def inject(self):
        await self.stop_etcd()
        for n in EACH:
            self.world.replace_etcd_data(n)
            child = self.world.part("etcd", n)
            child.command[child.command.index("--initial-cluster-state") + 1] = "new"


@register
class Poison(Fault):
    name = "poison"
    what = "somebody writes a key into Traefik's tree that makes Traefik refuse all of it"
    hold = (2, 4)
    weight = 1
    key = "traefik/http/routers/chaos/priority"

    def tell(self):
        return self.name

    async def inject(self):
        await any_etcd(self.world, "kv/put", {"key": b64(self.key), "value": b64("high")})

    async def heal(self):
        if self.world.has_flag("--own-root-key"):
            # It is Pointsman's to remove: give it the time that is promised, then complain.
            async def gone():
                return not (await any_etcd(self.world, "kv/range", {"key": b64(self.key)})).get("kvs")

            try:
                await until("Pointsman removes the foreign key", gone, 10, 0.2)
            except WorldFailed as why:
                self.complaints.append(str(why))
        await any_etcd(self.world, "kv/deleterange", {"key": b64(self.key)})


@register
class FullDisk(Fault):
    name = "full-disk"
    what = "the disk of one member of etcd is full"
    needs = ("root",)
    hold = (1, 2)
    alone = True
    weight = 1
    recovery_max = 30.0

    async def inject(self):
        world, n = self.world, self.number
        self.place = world.data(n)
        kept = self.place.with_name("kept")
        await world.kill("etcd", n)
        os.rename(self.place, kept)
        self.place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(self.place)], check=True)
        subprocess.run(["cp", "-a", "--sparse=always", f"{kept}/.", str(self.place)], check=True)
        shutil.rmtree(kept)
        await world.revive("etcd", n)
        await world.etcd_well(20)
        self.filler = self.place / "filler"
        with open(self.filler, "wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            except OSError:
                pass
        # It has some room of its own yet; some megabytes are more than that.
        world.expected_dead.add(("etcd", n))
        filler = base64.b64encode(os.urandom(1 << 20)).decode()
        for number in range(36):
            if not world.part("etcd", n).is_running():
                break
            try:
                await world.etcd((n + 1 + number % 2) % 3, "kv/put", {"key": b64("chaos/fill"), "value": filler}, 3)
            except (RuntimeError, ValueError):
                pass  # without a leader for a moment

    def tell(self):
        return f"{self.name}({self.number}{' died' if self.died else ''})"

    died = False

    async def heal(self):
        world, n = self.world, self.number
        self.died = not world.part("etcd", n).is_running()
        self.filler.unlink()
        if world.part("etcd", n).is_running():
            await world.kill("etcd", n)
        await world.revive("etcd", n)
        await any_etcd(world, "kv/deleterange", {"key": b64("chaos/fill")})
        await world.etcd_well(30)

    async def clean(self):
        """Back to the disk it came from."""
        world, n = self.world, self.number
        await compact(world)
        await world.kill("etcd", n)
        kept = self.place.with_name("kept")
        copy(self.place, kept)
        subprocess.run(["umount", str(self.place)], check=True)
        self.place.rmdir()
        os.rename(kept, self.place)
        await world.revive("etcd", n)
        await world.etcd_well(30)


@register
class ClockJump(Fault):
    name = "clock-jump"
    what = "the clock of one Pointsman jumps by some hours, forth or back"
    needs = ("a C compiler",)
    hold = (1, 3)

    def __init__(self, world, traffic, chance):
        super().__init__(world, traffic, chance)
        self.jump = chance.choice((-7200, -30, 30, 7200, 86400 * 400))

    def tell(self):
        return f"{self.name}({self.number} {self.jump})"

    async def inject(self):
        self._set(self.jump)

    async def heal(self):
        self._set(0)

    def _set(self, seconds):
        with open(self.world.clock_file(self.number), "r+b") as file:
            file.write(struct.pack("q", seconds))


def missing(fault):
    """What this machine lacks for a fault."""
    have = {
        "root": os.geteuid() == 0,
        "strace": shutil.which("strace") is not None,
        "a C compiler": shutil.which("cc") is not None,
    }
    return [need for need in fault.needs if not have[need]]
