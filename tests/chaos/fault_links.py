"""Faults of the links between processes."""

from fault import Fault, register
from world import EACH


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
class LostAnswers(Cut):
    name = "lost-answers"
    what = "answers of etcd to all Pointsmans get lost now and then: what was asked for has happened, and nobody says so"
    modes = ("tear",)
    hold = (2, 4)

    def tell(self):
        return self.name

    def links(self):
        return [(f"pointsman-{n}-etcd-{m}", None) for n in EACH for m in EACH]


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
