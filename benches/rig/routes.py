"""Routes as a site has them: 85 % servers, 15 % named servers, several ways of naming people."""

import random
from dataclasses import dataclass

FIRST = "anna ben carla david elena farid greta hans ines jane karim lena marek nora omar paula".split()
LAST = "abel brandt chen doe eriksen fischer garcia haddad ito jansen kaya lopez meyer novak okafor petrov".split()


@dataclass(frozen=True)
class Route:
    user: str
    server: str = ""

    @property
    def path(self):
        return f"/user/{self.user}/" + (f"{self.server}/" if self.server else "")


def routes(number, seed=2026):
    """The first `number` routes, always the same ones, and each once."""
    dice = random.Random(seed)
    found = {}
    while len(found) < number:
        first, last = dice.choice(FIRST), dice.choice(LAST)
        kind = dice.random()
        if kind < 0.6:
            user = f"{first}.{last}{dice.randrange(10 * number + 100)}"
        elif kind < 0.9:
            user = f"s{dice.randrange(1_000_000, 9_999_999)}"
        else:
            user = f"workshop-{dice.randrange(10 * number + 100)}"
        route = Route(user, dice.choice(["gpu", "r-studio", "teaching"]) if dice.random() < 0.15 else "")
        found[route.path] = route
    return list(found.values())
