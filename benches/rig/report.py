"""Numbers to tables."""

import math
import statistics


def median(samples):
    return statistics.median(samples)


def p99(samples):
    """The nearest rank: of fewer than 100 samples that is the worst."""
    return sorted(samples)[math.ceil(0.99 * len(samples)) - 1]


def milliseconds(seconds):
    value = seconds * 1000
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def times(number):
    return f"{number:.2f}" if number < 10 else f"{number:,.0f}"


def table(head, rows):
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def changes(results, titles):
    """Adding and removing, for each number of routes."""
    rows = []
    for size, kinds in sorted(results["changes"].items()):
        for kind, samples in kinds.items():
            cells = [f"{median(samples[name]) * 1000:,.1f} / {milliseconds(p99(samples[name]))}" for name in titles]
            to_floor = median(samples["pointsman"]) / median(samples["floor"])
            to_peer = median(samples["peer"]) / median(samples["pointsman"])
            rows.append([f"{size:,}", kind, len(samples["peer"]), *cells, times(to_floor), times(to_peer)])
    head = ["routes", "change", "samples", *titles.values(), "Pointsman : raw commit", "peer's keys : Pointsman"]
    return table(head, rows)


def rates(results, titles):
    rows = []
    for name, by_size in results["rates"].items():
        medians = [median(samples) for _, samples in sorted(by_size.items())]
        cells = [f"{each:,.0f}" for each in medians]
        rows.append([titles[name], *cells, times(medians[-1] / medians[0])])
    sizes = sorted(next(iter(results["rates"].values())))
    return table(["requests/s to `/`", *[f"{size:,} routes" for size in sizes], "last : first"], rows)


def others(results, titles):
    rows = []
    for name, found in results["restore"].items():
        each = f"{milliseconds(median(found['each']))} / {milliseconds(p99(found['each']))}"
        rows.append([f"{titles[name]}: {found['routes']:,} routes restored, 10 at a time", f"{found['seconds']:.2f} s"])
        rows.append([f"{titles[name]}: one call of these, median / p99, ms", each])
    size = f"{results['list_size']:,} routes"
    for name, samples in results["list"].items():
        rows.append([f"{titles[name]}: `GET /api/routes` at {size}, ms", milliseconds(median(samples))])
    for name, megabytes in results["memory"].items():
        rows.append([f"{titles[name]}: resident memory at {size}", f"{megabytes:.0f} MB"])
    for name, number in results["early_answers"].items():
        of_all = f"{number} of {results['answers'][name]}"
        rows.append([f"{titles[name]}: answers that came before the change was there", of_all])
    return table(["", "measured"], rows)


def markdown(results, titles):
    """All tables. Median / p99 in ms, where nothing else is said."""
    of_api = {name: titles[name] for name in ("chp", "floor", "pointsman", "peer")}
    return "\n\n".join(
        [
            "Milliseconds until a user's request is served by the change, median / p99:",
            changes(results, of_api),
            rates(results, titles),
            others(results, titles),
        ]
    )
