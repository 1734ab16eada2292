#!/usr/bin/env python3
"""The list of differences as the tables of docs/compatibility.md.

tests/dataplane/table.py            print them
tests/dataplane/table.py --write    put them into the page
"""

import sys
from pathlib import Path

from differences import DIFFERENCES, REASONS

PAGE = Path(__file__).resolve().parents[2] / "docs/compatibility.md"
BEGIN = "<!-- differences: written by tests/dataplane/table.py -->"
END = "<!-- end of differences -->"


def cell(text):
    """A text as code in a cell of a table."""
    one_line = text.replace("\n", " ").replace("|", "\\|").replace("`", "'")
    return f"`{one_line}`"


def tables():
    """One heading and one table for each reason."""
    lines = []
    for reason, (title, why) in REASONS.items():
        lines += [f"### {title}", "", why, "", "| Case | Seen | CHP | Pointsman |", "|---|---|---|---|"]
        for entry in DIFFERENCES:
            if entry.reason == reason:
                name = entry.field.replace("|", "\\|").replace("`", "'").replace("<", "&lt;")
                lines.append(f"| {entry.case} | {name} | {cell(entry.chp)} | {cell(entry.pointsman)} |")
        lines.append("")
    return "\n".join(lines)


def page_with(section, begin, end, page):
    """The page with this section between the two marks."""
    before, found, rest = page.partition(begin)
    _, also, after = rest.partition(end)
    if not found or not also:
        raise SystemExit(f"{PAGE} lacks the line {begin if not found else end}")
    return f"{before}{begin}\n\n{section}\n{end}{after}"


def current():
    """The page as it should be."""
    return page_with(tables(), BEGIN, END, PAGE.read_text())


if __name__ == "__main__":
    if "--write" in sys.argv:
        PAGE.write_text(current())
    else:
        print(tables())
