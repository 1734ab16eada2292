"""The demos as a person meets them: at a terminal, and in the browser."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
import requests
from conftest import ROOT, started_by_tests
from devkit.child import wait_until

START_SECONDS = 90
STOP_SECONDS = 45


class Demo:
    """A running demo at a terminal of its own, and what it has said so far.

    `size` is the number of rows and columns of the terminal; without it the demo can't divide its screen.
    """

    def __init__(self, binary, folder, port, kind, size=None):
        self.parts = kind["parts"]
        self.output = folder / "demo.txt"
        self.output.touch()
        script, *words = kind["words"]
        command = [sys.executable, ROOT / "scripts" / script, "--binary", binary, "--no-setup", "--port", port, *words]
        self.terminal, inside = pty.openpty()
        if size:
            fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

        def at_the_terminal():
            os.setsid()
            fcntl.ioctl(inside, termios.TIOCSCTTY, 0)
            # Where these tests are a background job it would be ignored.
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            preexec_fn=at_the_terminal,
            env={**os.environ, "TERM": "xterm"},
        )
        started_by_tests.add(self.process.pid)
        os.close(inside)
        self.hung_up = False
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self):
        with open(self.output, "ab", buffering=0) as output:
            while not self.hung_up:
                # Never asleep in `read`: a terminal that somebody reads from is not hung up by closing it.
                ready, _, _ = select.select([self.terminal], [], [], 0.1)
                try:
                    text = os.read(self.terminal, 4096) if ready else b""
                except OSError:
                    return  # nobody is at the other end any more
                # As a person sees it: without what only moves the cursor.
                output.write(re.sub(rb"\r|\x1b(\[[0-9;]*[A-Za-z]|7|8)", b"", text))

    def type(self, line):
        """Type a line."""
        os.write(self.terminal, line.encode() + b"\n")

    def press_ctrl_c(self):
        os.write(self.terminal, b"\x03")

    def hang_up(self):
        """Close the terminal's window."""
        self.hung_up = True
        self.listener.join()
        os.close(self.terminal)

    def said(self):
        return self.output.read_text(errors="replace")

    def wait_for(self, pattern, seconds=START_SECONDS):
        """Wait until it has said this, and give the match."""

        def condition():
            found = re.search(pattern, self.said(), re.M)
            if not found and self.process.poll() is not None and not re.search(pattern, self.said(), re.M):
                pytest.fail(f"The demo ended with status {self.process.returncode}:\n{self.said()}", pytrace=False)
            return found

        return wait_until(f"the demo says {pattern!r}", condition, seconds)

    def wait_until_open(self):
        """Wait for its last line. Gives the address; what is running is then in `pids` and `folder`."""
        address = self.wait_for(r"^Open (http://\S+) ").group(1)
        table = re.findall(r"^  ([\w-]+) +(\d+)  (http://\S+) +(\S.*)$", self.said(), re.M)
        assert [row[0] for row in table] == self.parts, self.said()
        self.pids = {name: int(pid) for name, pid, _, _ in table}
        self.ports = [int(url.rpartition(":")[2]) for _, _, url, _ in table]
        logs = re.search(r"^  logs: (\S+)$", self.said(), re.M)
        self.folder = Path(logs.group(1) if logs else Path(table[0][3]).parent).resolve().parent
        return address

    def processes(self):
        """Every process that has to do with its folder: by its command, its variables or its working folder."""
        mark = str(self.folder).encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                words = (
                    (entry / "cmdline").read_bytes()
                    + (entry / "environ").read_bytes()
                    + os.readlink(entry / "cwd").encode()
                )
                if mark in words and state != "Z":
                    found[int(entry.name)] = (
                        (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
                    )
        return found

    def assert_nothing_left(self, seconds=STOP_SECONDS):
        """No process, no open port, no file."""
        wait_until(
            "no process is left",
            lambda: not self.processes() or (_ for _ in ()).throw(AssertionError(self.processes())),
            seconds,
        )
        wait_until("its folder is gone", lambda: not self.folder.exists(), seconds)
        for port in self.ports:
            with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
                probe.connect(("127.0.0.1", port))


def log_in_and_spawn(address, name="demo-user"):
    """Log in by the hub's form, and wait until JupyterLab's page comes from the user's own server."""
    session = requests.Session()
    form = session.get(f"{address}/hub/login", timeout=30)
    token = re.search(r'name="_xsrf"\s+value="([^"]+)"', form.text).group(1)
    session.post(f"{address}/hub/login", data={"username": name, "password": "x", "_xsrf": token}, timeout=60)

    def lab():
        page = session.get(f"{address}/user/{name}/lab", timeout=30)
        if page.status_code == 200 and "jupyter-config-data" in page.text:
            return True
        raise AssertionError(f"{page.status_code} {page.url}")

    wait_until("JupyterLab's page comes", lab, 60)
    return session


@contextlib.contextmanager
def ended_after(demo):
    """The demo, for the time of a test; what goes on after it is ended."""
    yield demo
    if demo.process.poll() is None:
        demo.process.send_signal(signal.SIGTERM)
        try:
            demo.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            demo.process.kill()
