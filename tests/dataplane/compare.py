"""Two observations, field by field, and the list of differences beside them."""

from differences import DIFFERENCES

NOTHING = "(nothing)"
LONGEST = 160


def show(value):
    """A value as a short text that can stand in a table."""
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif value is None:
        text = NOTHING
    elif isinstance(value, (list, tuple)):
        text = ", ".join(show(part) for part in value) or NOTHING
    elif isinstance(value, bytes):
        text = value.decode("latin-1")
    else:
        text = str(value)
    text = text or "(empty)"
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def differing(chp, pointsman):
    """The fields that differ: field to the pair of texts."""
    fields = dict.fromkeys([*chp, *pointsman])
    if set(pointsman) == {"start"} and "start" not in chp:
        return {"start": ("starts", pointsman["start"])}
    if set(chp) == {"start"} and "start" not in pointsman:
        return {"start": (chp["start"], "starts")}
    pairs = {name: (chp.get(name, NOTHING), pointsman.get(name, NOTHING)) for name in fields}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def expected(case):
    """The listed differences of a case."""
    return {entry.field: entry for entry in DIFFERENCES if entry.case == f"{case.group}: {case.name}"}


def compared(case, found, listed):
    """What is wrong between what was found and what is listed, as sentences; and lines for the list."""
    problems = []
    for name, (chp, pointsman) in found.items():
        entry = listed.get(name)
        if entry is None or (entry.chp, entry.pointsman) != (chp, pointsman):
            title = f"{case.group}: {case.name}"
            word = "not listed" if entry is None else f"listed as {entry.chp!r} and {entry.pointsman!r}"
            problems.append(f"{title}, {name}: CHP {chp!r}, Pointsman {pointsman!r}; {word}")
            problems.append(f"    Difference(REASON, {title!r}, {name!r}, {chp!r}, {pointsman!r}),")
    for name in listed:
        if name not in found:
            problems.append(f"{case.group}: {case.name}, {name}: listed as a difference, and there is none")
    return problems
