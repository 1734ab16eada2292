"""The faults: each a small class that says what it needs, does harm, and undoes it."""

import asyncio
import os
import shutil
import signal

from devkit.child import Child
from world import EACH, until

REGISTRY = {}
# A fault that would break quorum for long, or replaces data, comes alone.
ALONE = "alone"


def register(cls):
    REGISTRY[cls.name] = cls
    return cls


class Fault:
    """One fault of one run. `chance` decides what it hits and how long it holds."""

    name = ""
    what = ""  # a sentence for people
    needs = ()  # root, strace, cc
    hold = (0.5, 2.5)  # seconds
    recovery_max = 20.0  # seconds from healing until all is well
    alone = False
    # Users of a ready Traefik may see failures (the Traefik itself hangs, or there is none).
    users_suffer = False
    # Writes may be refused for as long as it holds.
    writes_wait = True
    # What was acknowledged before may be gone: only agreement is checked.
    may_lose = False
    # Traefiks whose websockets may die.
    weight = 2

    def __init__(self, world, traffic, chance):
        self.world, self.traffic, self.chance = world, traffic, chance
        self.number = chance.randrange(3)
        self.seconds = chance.uniform(*self.hold)

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
class StopTraefik(Stop):
    name, kind = "stop-traefik", "traefik"
    what = "SIGSTOP and SIGCONT of one Traefik"
    hold = (1, 3)
    users_suffer = True


@register
class StopTraefikLong(StopTraefik):
    name = "stop-traefik-long"
    what = "SIGSTOP of one Traefik for longer than the laggard's grace: writes have to go on without it"
    hold = (9, 11)
    weight = 1


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
    what = "the same for longer than the laggard's grace: it must be withdrawn, and writes go on without it"
    hold = (10, 12)
    weight = 1


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


def missing(fault):
    """What this machine lacks for a fault."""
    have = {
        "root": os.geteuid() == 0,
        "strace": shutil.which("strace") is not None,
        "a C compiler": shutil.which("cc") is not None,
    }
    return [need for need in fault.needs if not have[need]]
