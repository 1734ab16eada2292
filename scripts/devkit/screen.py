"""What the demo shows: lines that scroll, and on a terminal below them one that stays, and one to type in."""

import contextlib
import os
import sys
import textwrap
import threading

PROMPT = "> "
FEWEST_ROWS, FEWEST_COLUMNS = 8, 40
INDENT_COLUMNS = 13


class Screen:
    """Without a terminal the steady line is printed now and then instead."""

    def __init__(self, out=sys.stdout):
        self.out = out
        self.size = None
        self.line = ""
        self.lock = threading.Lock()

    def _room(self):
        """Rows and columns of the terminal, or None if there is none that we could divide."""
        with contextlib.suppress(OSError, ValueError):
            if self.out.isatty() and sys.stdin.isatty() and os.environ.get("TERM", "dumb") != "dumb":
                columns, rows = os.get_terminal_size(self.out.fileno())
                if rows >= FEWEST_ROWS and columns >= FEWEST_COLUMNS:
                    return rows, columns
        return None

    def _write(self, text):
        with contextlib.suppress(OSError, ValueError):
            self.out.write(text)
            self.out.flush()

    def open(self):
        """Divide the terminal: all but the last two rows scroll."""
        room = self._room()
        if room:
            rows, _ = room
            self._write(f"\n\n\033[1;{rows - 2}r\033[{rows};1H\033[K{PROMPT}")
        self.size = room
        self.steady(self.line)

    def close(self):
        """Give the whole terminal back."""
        if self.size:
            rows, _ = self.size
            self._write(f"\033[r\033[{rows - 1};1H\033[J")
            self.size = None

    def say(self, text=""):
        """Print lines above the steady one, without touching what is being typed."""
        with self.lock:
            for line in str(text).split("\n"):
                if self.size:
                    rows, columns = self.size
                    for row in textwrap.wrap(line, columns - 1, subsequent_indent=" " * INDENT_COLUMNS) or [""]:
                        self._write(f"\0337\033[{rows - 2};1H\n\033[K{row}\0338")
                else:
                    self._write(line + "\n")

    def steady(self, line):
        """Show the line that stays."""
        with self.lock:
            self.line = line
            if self.size:
                rows, columns = self.size
                self._write(f"\0337\033[{rows - 1};1H\033[7m{line[:columns].ljust(columns)}\033[0m\0338")

    def typed(self):
        """A line was typed: empty the last row for the next one."""
        if self.size:
            self._write(f"\033[{self.size[0]};1H\033[K{PROMPT}")

    def follow_size(self):
        """Divide the terminal anew if its window has changed."""
        if self.size and self._room() != self.size:
            self._write("\033[r\033[2J")
            self.open()
