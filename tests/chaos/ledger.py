"""What runs leave behind: a line each in a file of tabs, and tables of such lines."""

import subprocess
import time
from collections import defaultdict

from devkit.places import ROOT

COLUMNS = (
    "date", "commit", "seed", "faults", "calls", "unknown", "requests", "recovery_s", "gap_s", "failed", "result",
)  # fmt: skip


def commit():
    """The commit of this checkout, with + if something was changed since."""
    try:
        run = lambda *words: subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: E731
        changed = run("git", "status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock")
        return run("git", "rev-parse", "--short=9", "HEAD").strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def line_of(result, date="", of=""):
    verdict = ",".join(sorted({v.kind for v in result.violations})) or ("ok, busy" if result.busy else "ok")
    values = [
        date, of, str(result.seed), "+".join(result.faults), str(result.calls), str(result.unknown),
        str(result.looks), f"{result.recovery:.2f}", f"{result.gap:.2f}", str(result.failed), verdict,
    ]  # fmt: skip
    return dict(zip(COLUMNS, values))


class Ledger:
    """A file that grows by a line a run."""

    def __init__(self, path, of=None):
        self.path = path
        self.commit = of or commit()
        if not path.exists():
            path.write_text("\t".join(COLUMNS) + "\n")

    def next_seed(self):
        return 1 + max((int(line["seed"]) for line in read(self.path)), default=0)

    def add(self, result):
        line = line_of(result, time.strftime("%Y-%m-%d"), self.commit)
        with open(self.path, "a") as file:
            file.write("\t".join(line[name] for name in COLUMNS) + "\n")


def read(path):
    with open(path) as file:
        names = file.readline().rstrip("\n").split("\t")
        return [dict(zip(names, line.rstrip("\n").split("\t"))) for line in file if line.strip()]


def progress(number, runs, result, left):
    verdict = "VIOLATION" if result.violations else "ok, but busy" if result.busy else "ok"
    return (
        f"  {number:>4}/{runs}  seed {result.seed:<6} {'+'.join(result.faults):<52} calls {result.calls:>4}"
        f" ({result.unknown} unknown)  requests {result.looks:>4}  recovery {result.recovery:4.1f} s"
        f"  gap {result.gap:4.1f} s  failed {result.failed:<3} {verdict}  {result.seconds:.1f} s, {left / 60:.0f} min left"
    )


def table(lines):
    """By fault: runs, violations, and the worst of the rest. A run with two faults counts for both."""
    groups = defaultdict(list)
    for line in lines:
        for fault in line["faults"].split("+"):
            groups[fault.partition("(")[0]].append(line)
    rows = ["| fault | runs | violations | worst recovery | longest without a change | failed requests |"]
    rows.append("| --- | ---: | ---: | ---: | ---: | ---: |")

    def row(name, group):
        bad = sum(not line["result"].startswith("ok") for line in group)
        recovery, gap = (max(float(line[key]) for line in group) for key in ("recovery_s", "gap_s"))
        failed = sum(int(line["failed"]) for line in group)
        return f"| {name} | {len(group)} | {bad} | {recovery:.1f} s | {gap:.1f} s | {failed} |"

    rows += [row(name, groups[name]) for name in sorted(groups)]
    if lines:
        rows.append(row("**all runs**", lines))
        calls, requests = (sum(int(line[key]) for line in lines) for key in ("calls", "requests"))
        rows += ["", f"{len(lines)} runs, {calls:,} answered calls, {requests:,} requests of users."]
    return "\n".join(rows)


def describe(registry):
    rows = ["| fault | what happens | needs |", "| --- | --- | --- |"]
    rows += [f"| `{n}` | {registry[n].what} | {', '.join(registry[n].needs)} |" for n in sorted(registry)]
    return "\n".join(rows)


def write_into(page, lines, registry):
    """Put both tables into a page, between its marks."""
    text = page.read_text()
    for mark, content in (("faults", describe(registry)), ("ledger", table(read(lines)))):
        begin, end = f"<!-- {mark} -->\n", "<!-- end -->"
        before, _, rest = text.partition(begin)
        text = before + begin + content + "\n" + end + rest.partition(end)[2]
    page.write_text(text)
