"""Faults of etcd while it lives: compacted, slow, full, a member replaced, a key of somebody else's."""

import asyncio
import base64
import os
import shutil
import signal
import subprocess

from etcd import any_etcd, b64, compact, copy, disarm
from fault import Fault, register
from fault_links import Cut
from wire import end
from world import EACH, WorldFailed, until


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
            try:
                await self.world.etcd(n, "maintenance/defragment", {}, 20)
            except (RuntimeError, ValueError):
                pass  # another fault has this one


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

        async def applied(number):
            return int((await self.world.etcd(number, "maintenance/status"))["raftAppliedIndex"])

        async def caught_up():
            return await applied(self.number) >= log

        async def well():
            # It went through the log once more, and if etcd was full in there, it says so once more, before it takes this.
            await disarm(self.world)
            await self.world.etcd(self.number, "kv/put", {"key": b64("chaos/joined"), "value": b64("yes")})
            return await self.world.is_etcd_well()

        log = max([await applied(n) for n in EACH if n != self.number])
        await until("the new member has caught up", caught_up, 30)
        await until("all members of etcd are healthy", well, 30, 0.3)


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
        await disarm(world)


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
    # Some more files of its log, of which it makes copies when it finds one that ends in the midst of an entry.
    room_bytes = 4 * (64 << 20)

    async def inject(self):
        world, n = self.world, self.number
        self.place = world.data(n)
        kept = self.place.with_name("kept")
        await world.kill("etcd", n)
        os.rename(self.place, kept)
        self.place.mkdir()
        # What is a hole in a file may be written to when it starts.
        size = sum(file.stat().st_size for file in kept.rglob("*")) + self.room_bytes
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.place)], check=True)
        subprocess.run(["cp", "-a", "--sparse=always", f"{kept}/.", str(self.place)], check=True)
        shutil.rmtree(kept)
        await world.revive("etcd", n)
        await world.etcd_well(20)
        self.filler = self.place / "filler"
        with open(self.filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
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
