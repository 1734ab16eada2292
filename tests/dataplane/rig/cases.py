"""The list of cases, and the flags under which they run."""

from dataclasses import dataclass, field
from typing import Callable

CASES = []
GROUPS = {}


@dataclass
class Group:
    """Cases that need the same flags. `flags(rig)` gives them; `rig` has certificates, ports and folders."""

    name: str
    flags: Callable
    environment: dict = field(default_factory=dict)
    tls: bool = False
    title: str = ""


@dataclass
class Case:
    """One case. `function(world)` gives what was observed: a flat dict from field to a plain value.

    With `at_once` both proxies are asked at the same time, which saves a long wait; such a case has no error target.
    """

    name: str
    group: str
    function: Callable
    slow: bool = False
    seconds: int = 60
    at_once: bool = False


def group(name, *flags, flags_of=None, tls=False, environment=None):
    """Declare a group, and get its decorator for cases."""
    GROUPS[name] = Group(name, flags_of or (lambda rig: list(flags)), environment or {}, tls, " ".join(flags))

    def case(title, slow=False, seconds=60, at_once=False):
        def keep(function):
            CASES.append(Case(title, name, function, slow, seconds, at_once))
            return function

        return keep

    return case
