"""A program that runs for us: started with a log file, watched, stopped for certain."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

from .with_parent import die_with_parent

PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


class PartFailed(Exception):
    """A part died, or did not come up in time. The message names it and shows the end of its log."""


def adopt_orphans():
    """Become the parent of every descendant whose own parent dies, so that none gets lost."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_of(pid):
    """The process numbers of the children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError):
            # The name in parentheses may hold blanks and parentheses of its own.
            after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(after_name[1]) == pid:
                found.append(int(entry.name))
    return found


def child_that_runs(pid, name):
    """The process number of a child of `pid` that was started as the program `name`, or None."""
    for child in children_of(pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if os.path.basename(words[0]) == name.encode():
                return child
    return None


def orphans_that_ended():
    """Zombies below this process that nobody in it started."""
    found = []
    for thread in Path("/proc/self/task").iterdir():
        try:
            children = (thread / "children").read_text().split()
        except OSError:
            continue
        for pid in children:
            try:
                state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
                # Users' servers are started in sessions of their own; what a library starts, such as a browser, is not.
                if state == "Z" and int(session) != os.getsid(0):
                    found.append(int(pid))
            except (OSError, ValueError):
                continue
    return found


def reap_orphans(ours):
    """Collect the ends of adopted processes, as init would: to a hub a zombie looks alive. `ours` are left alone."""
    for orphan in set(orphans_that_ended()) - ours:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(orphan, os.WNOHANG)


def reap_orphans_for_ever(ours):
    """Collect them until this process ends. `ours()` says each time whom to leave alone."""
    pause = threading.Event()
    while not pause.wait(0.1):
        reap_orphans(ours())


def kill_descendants(deadline_seconds=10):
    """Kill every process below this one, also those that are only born meanwhile. Needs `adopt_orphans`."""
    deadline = time.monotonic() + deadline_seconds
    while time.monotonic() < deadline:
        alive = children_of(os.getpid())
        if not alive:
            return
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in alive:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


class Child:
    """One running program."""

    def __init__(self, name, command, log, env=None, cwd=None):
        self.name = name
        self.command = [str(word) for word in command]
        self.log = Path(log)
        self.env = env
        self.cwd = cwd
        self.process = None

    def start(self):
        """Start it, in a session of its own so that a Ctrl-C at the terminal reaches only us."""
        parent = os.getpid()

        def before_exec():
            # A shell's background job ignores Ctrl-C, and so would all below it: JupyterHub ends its services that way.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            die_with_parent()
            if os.getppid() != parent:
                os._exit(1)

        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
                preexec_fn=before_exec,
            )
        return self

    @property
    def pid(self):
        return self.process.pid

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def tail(self, lines=15):
        """The last lines of its log."""
        try:
            return "\n".join("    " + line for line in self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError as error:
            return f"    (its log can't be read: {error})"

    def check(self):
        """Raise if it has ended."""
        if not self.is_running():
            code = self.process.returncode
            how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
            raise PartFailed(f"{self.name} {how}. The end of its log:\n{self.tail()}")

    def send(self, number):
        """Send it a signal, if it still runs."""
        if self.is_running():
            self.process.send_signal(number)

    def catches(self, number):
        """Whether it does something of its own when it gets this signal, so that it can be asked to end in good order."""
        caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{self.pid}/status").read_text(), re.M).group(1)
        return bool(int(caught, 16) >> (number - 1) & 1)

    def stop(self, patience_seconds=10, number=signal.SIGTERM):
        """End it: ask, wait, then kill it and what it left in its session. True if asking was enough."""
        if self.process is None:
            return True
        self.send(number)
        try:
            self.process.wait(patience_seconds)
            obeyed = True
        except subprocess.TimeoutExpired:
            obeyed = False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return obeyed

    def kill(self):
        """End it as a power cut would."""
        self.send(signal.SIGKILL)
        self.process.wait()


def wait_until(what, condition, seconds=30, watched=(), interval_seconds=0.05):
    """Wait until `condition()` gives something true, and return that.

    An exception counts as "not yet". When the time is over, or a watched program has died,
    the error says what was seen last.
    """
    deadline = time.monotonic() + seconds
    while True:
        for child in watched:
            child.check()
        try:
            last = condition()
            if last:
                return last
        except Exception as error:  # whatever a program that is coming up answers
            last = f"{type(error).__name__}: {error}"
        if time.monotonic() > deadline:
            logs = "".join(f"\n  The end of {child.name}'s log:\n{child.tail()}" for child in watched)
            raise PartFailed(f"Waited {seconds} s in vain until {what}. Last seen: {last!r}.{logs}")
        time.sleep(interval_seconds)
