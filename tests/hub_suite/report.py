"""Compare a run of JupyterHub's tests with the baseline, and say it in a table."""

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
BASELINE = HERE / "baseline.json"
ACCEPTED = HERE / "accepted.json"
PAGE = HERE.parents[1] / "docs/compatibility.md"
BEGIN = "<!-- hub suite: written by tests/hub_suite/run --write -->"
END = "<!-- end of hub suite -->"
WORDS = ("passed", "failed", "skipped")


def read_baseline():
    return json.loads(BASELINE.read_text())


def keep_baseline(run):
    """Put what was run into the baseline, in place of what it had of the same files."""
    kept = read_baseline()["variants"] if BASELINE.exists() else {}
    for variant, outcomes in run["variants"].items():
        files = {test.split("::")[0] for test in outcomes}
        others = {test: entry for test, entry in kept.get(variant, {}).items() if test.split("::")[0] not in files}
        kept[variant] = {**others, **outcomes}
    whole = {**run, "variants": kept}
    BASELINE.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")


def judge(run, baseline, accepted=None):
    """Which tests came out worse than in the baseline: accepted ones (with the reason) and unexpected ones.

    An accepted test that passes is unexpected too: the list must not be longer than the truth.
    """
    accepted = json.loads(ACCEPTED.read_text()) if accepted is None else accepted
    verdict = {"accepted": [], "unexpected": [], "both": []}
    for variant, outcomes in run["variants"].items():
        before = baseline["variants"].get(variant, {})
        for test, entry in sorted(outcomes.items()):
            reason = accepted.get(variant, {}).get(test)
            worse = entry["outcome"] == "failed"
            if worse and before.get(test, {}).get("outcome") == "failed":
                verdict["both"].append((variant, test, entry.get("why", "")))
            elif worse and reason:
                verdict["accepted"].append((variant, test, reason))
            elif worse:
                verdict["unexpected"].append((variant, test, entry.get("why", "")))
            elif reason and entry["outcome"] == "passed":
                verdict["unexpected"].append((variant, test, "passes, but accepted.json says it can't"))
    return verdict


def counts(outcomes, name):
    """Passed, failed, skipped of one file."""
    of_file = [entry["outcome"] for test, entry in outcomes.items() if test.split("::")[0].endswith("/" + name)]
    return [of_file.count(word) for word in WORDS]


def markdown(run, baseline, verdict):
    """The report as Markdown."""
    lines = [
        f"JupyterHub {run['jupyterhub']}, {run['proxy']}, {run['date']}, beside {baseline['proxy']}.",
        "",
        f"| Variant | File | {baseline['proxy']} | {run['proxy']} |",
        "|---|---|---|---|",
    ]
    for variant, outcomes in run["variants"].items():
        files = dict.fromkeys(test.split("::")[0].rpartition("/")[2] for test in outcomes)
        for name in files:
            theirs = counts(baseline["variants"].get(variant, {}), name)
            ours = counts(outcomes, name)
            lines.append(f"| {variant} | `{name}` | {said(theirs)} | {said(ours)} |")
    for title, key in (
        ("Fails by decision", "accepted"),
        ("Fails with both", "both"),
        ("Fails unexpectedly", "unexpected"),
    ):
        lines += ["", f"{title}:" if verdict[key] else f"{title}: none.", *([""] if verdict[key] else [])]
        for variant, test, why in verdict[key]:
            short = test.removeprefix("jupyterhub/tests/")
            lines.append(f"- {variant}, `{short}`: {' '.join(why.split())[:300]}")
    return "\n".join(lines) + "\n"


def said(numbers):
    return ", ".join(f"{number} {word}" for number, word in zip(numbers, WORDS) if number) or "not run"


def write_page(section):
    """Put the report into docs/compatibility.md."""
    before, found, rest = PAGE.read_text().partition(BEGIN)
    _, also, after = rest.partition(END)
    if not found or not also:
        raise SystemExit(f"{PAGE} lacks the lines between which the report belongs.")
    PAGE.write_text(f"{before}{BEGIN}\n\n{section}\n{END}{after}")
