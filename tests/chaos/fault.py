"""What every fault has, and the list of all of them."""

import os
import shutil

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


def missing(fault):
    """What this machine lacks for a fault."""
    have = {
        "root": os.geteuid() == 0,
        "strace": shutil.which("strace") is not None,
        "a C compiler": shutil.which("cc") is not None,
    }
    return [need for need in fault.needs if not have[need]]
