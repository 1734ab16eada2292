"""Faults of processes: killed, stopped for a while, restarted, with a wrong clock."""

import asyncio
import signal
import struct

from fault import Fault, register
from world import EACH, until


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
