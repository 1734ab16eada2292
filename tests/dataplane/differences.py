"""Where Pointsman's data plane differs from configurable-http-proxy's, and why. The table in the docs is made of it.

`make test-dataplane` holds each line: what is listed must occur, and nothing else may.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One field of one case. `reason` is a key of REASONS."""

    reason: str
    case: str
    field: str
    chp: str
    pointsman: str


REASONS = {}

DIFFERENCES = []
