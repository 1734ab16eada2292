"""What was asked and what was answered, with times of one clock. The checker reads nothing else."""

import json
from dataclasses import asdict, dataclass
from typing import Optional

FOREVER = float("inf")
ABSENT = None

DONE, PERHAPS, NEVER = "done", "perhaps", "never"


@dataclass
class Call:
    """One call of the API about one route. A list of all routes is one `get` for each."""

    route: str
    kind: str  # put, delete, get
    value: Optional[str]  # what a put writes, or a get has seen
    status: object  # as it was answered; or refused, late, broken
    outcome: str  # done; perhaps (nobody knows); never
    start: float
    end: float
    replica: int
    existed: Optional[bool] = None  # what a delete has found
    writes_head: bool = False  # it surely changed the store, if it is done
    # From then on its replica does nothing more for it: its answer, or the end of its process.
    over: float = FOREVER


@dataclass
class Look:
    """One request of a user."""

    where: str  # traefik-0 …, or users: through the balancer
    route: str
    value: Optional[str]  # what served it
    status: object
    start: float
    end: float
    ready: bool  # whether the balancer would have sent it there


@dataclass
class Violation:
    kind: str
    text: str


class History:
    """All of one run."""

    def __init__(self):
        self.calls, self.looks = [], []
        self.events = []  # (time, text): faults, kills, what is worth knowing beside

    def save(self, path):
        with open(path, "w") as file:
            entries = [(each.start, {"what": type(each).__name__, **asdict(each)}) for each in self.calls + self.looks]
            entries += [(at, {"what": "event", "at": at, "text": text}) for at, text in self.events]
            for _, entry in sorted(entries, key=lambda pair: pair[0]):
                file.write(json.dumps(entry) + "\n")
