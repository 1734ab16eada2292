"""All of etcd goes away, and comes back: as it was, as it had been before, or empty."""

import asyncio
import os
import shutil

from etcd import copy
from fault import Fault, register
from world import EACH, WorldFailed, until


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
        # Snapshots are up to 2 s old, and routes older than what another Traefik serves are not given out.
        await asyncio.sleep(3)
        for n in EACH:
            await self.world.kill("pointsman", n)
        await self.world.kill("traefik", self.number)
        for n in EACH:
            await self.world.revive("pointsman", n)
        await self.world.revive("traefik", self.number)
        await self.serves_again(self.number)


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
