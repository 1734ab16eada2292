"""What was seen while the chart was played: said at once, and kept for the page."""

import datetime
import time

MARKS = ("<!-- the report begins -->", "<!-- the report ends -->")


class Report:
    """Rows of what was done, what was seen, and whether that is good."""

    def __init__(self):
        self.began = time.monotonic()
        self.rows, self.failed = [], False

    def say(self, text):
        print(f"[{time.monotonic() - self.began:6.1f}] {text}", flush=True)

    def row(self, what, seen, good=True):
        self.rows.append((what, seen, "" if good else "**failed**"))
        self.failed |= not good
        self.say(f"{what}: {seen}" + ("" if good else "  FAILED"))

    def page(self, machine):
        """All of it, for the page."""
        lines = [f"{datetime.date.today().isoformat()}, {machine}.", "", "| What | Seen | |", "| --- | --- | --- |"]
        return "\n".join(lines + [f"| {what} | {seen} | {mark} |" for what, seen, mark in self.rows])

    def write_into(self, page, machine):
        """Put it into its place in a page."""
        text = page.read_text()
        head, tail = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
        page.write_text(f"{head}{MARKS[0]}\n{self.page(machine)}\n{MARKS[1]}{tail}")
