"""A plugin for pytest: what became of each test, as JSON in the file that HUB_SUITE_OUTCOMES names."""

import json
import os
import sys

SOURCES = os.getcwd()
outcomes = {}


def pytest_runtest_logreport(report):
    entry = outcomes.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0, "reruns": 0})
    entry["seconds"] = round(entry["seconds"] + report.duration, 2)
    if report.outcome == "rerun":
        entry["reruns"] += 1
    elif report.outcome == "failed":
        entry["outcome"] = "failed"
        entry["stage"] = report.when
        crash = getattr(report.longrepr, "reprcrash", None)
        why = f"{crash.path}:{crash.lineno}: {crash.message}" if crash else str(report.longrepr)[-400:]
        # Where the checkout lies is nobody's business.
        entry["why"] = why.replace(SOURCES + "/", "").replace(sys.prefix + "/", "")
    elif report.outcome == "skipped" and entry["outcome"] == "passed":
        entry["outcome"] = "skipped"


def pytest_sessionfinish():
    with open(os.environ["HUB_SUITE_OUTCOMES"], "w") as file:
        json.dump(outcomes, file, indent=1)
