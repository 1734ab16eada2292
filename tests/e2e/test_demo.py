"""The demos themselves, as a person starts and stops them: most on the one without etcd, the essential on both."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
import requests
from conftest import ROOT, started_by_tests
from devkit.child import wait_until
from devkit.places import HOME

START_SECONDS = 90
STOP_SECONDS = 45
ONE_MACHINE = {"words": [], "parts": ["hub", "pointsman", "traefik"]}
WITH_ETCD = {"words": ["--etcd"], "parts": ["etcd", "pointsman", "traefik", "hub"]}
both_demos = pytest.mark.parametrize("kind", [ONE_MACHINE, WITH_ETCD], ids=["one-machine", "etcd"])


class Demo:
    """A running `scripts/demo` at a terminal of its own, and what it has said so far."""

    def __init__(self, binary, folder, port, kind):
        self.parts = kind["parts"]
        self.output = folder / "demo.txt"
        self.output.touch()
        command = [sys.executable, ROOT / "scripts" / "demo", "--binary", binary, "--no-setup", "--port", port]
        command += kind["words"]
        self.terminal, inside = pty.openpty()

        def at_the_terminal():
            os.setsid()
            fcntl.ioctl(inside, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=inside, stdout=inside, stderr=inside, preexec_fn=at_the_terminal
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
                output.write(re.sub(rb"\r|\x1b(\[K|7|8)", b"", text))

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
        table = re.findall(r"^  (\w+) +(\d+)  (http://\S+) +(\S+)$", self.said(), re.M)
        assert [row[0] for row in table] == self.parts, self.said()
        self.pids = {name: int(pid) for name, pid, _, _ in table}
        self.ports = [int(url.rpartition(":")[2]) for _, _, url, _ in table]
        self.folder = Path(table[0][3]).resolve().parents[1]
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


@pytest.fixture
def busy_port():
    """A port that somebody else listens on: the demo's usual one, if it is not busy anyway."""
    with socket.socket() as somebody:
        somebody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            somebody.bind(("127.0.0.1", 8000))
            somebody.listen()
        yield 8000


@pytest.fixture
def kind():
    """Which demo it is, where a test doesn't say."""
    return ONE_MACHINE


@pytest.fixture
def demo(binary, tmp_path, busy_port, kind):
    demo = Demo(binary, tmp_path, busy_port, kind)
    yield demo
    if demo.process.poll() is None:
        demo.process.send_signal(signal.SIGTERM)
        try:
            demo.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            demo.process.kill()


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


@both_demos
def test_ctrl_c_leaves_nothing(demo):
    address = demo.wait_until_open()
    assert not address.endswith(":8000")
    assert "Port 8000 is taken" in demo.said()
    log_in_and_spawn(address)
    assert any("jupyterhub-singleuser" in command or "singleuser" in command for command in demo.processes().values())
    demo.press_ctrl_c()
    assert demo.process.wait(STOP_SECONDS) == 0, demo.said()
    demo.assert_nothing_left(5)
    demo.wait_for(r"^Everything is stopped\.$", 5)


@pytest.mark.parametrize(
    "end", [lambda demo: demo.hang_up(), lambda demo: demo.process.terminate()], ids=["hangup", "sigterm"]
)
def test_other_ends_leave_nothing_either(demo, end):
    demo.wait_until_open()
    end(demo)
    assert demo.process.wait(STOP_SECONDS) == 0
    demo.assert_nothing_left(5)


@pytest.mark.parametrize(
    ("kind", "who"),
    [(ONE_MACHINE, "front"), (ONE_MACHINE, "worker"), (ONE_MACHINE, "both"), (WITH_ETCD, "both")],
    ids=["front", "worker", "both", "etcd-both"],
)
def test_a_killed_demo_leaves_nothing(demo, who):
    address = demo.wait_until_open()
    log_in_and_spawn(address)
    front = demo.process.pid
    worker = int(Path(f"/proc/{front}/task/{front}/children").read_text().split()[0])
    victims = {"front": [front], "worker": [worker], "both": [front, worker]}[who]
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    demo.process.wait(STOP_SECONDS)
    if who == "both":
        # Nobody is left to remove the folder; the next demo does it.
        wait_until("no process is left", lambda: not demo.processes(), STOP_SECONDS)
        subprocess.run(
            [sys.executable, ROOT / "scripts" / "demo", "--binary", "/bin/false", "--no-setup"],
            capture_output=True,
            timeout=60,
        )
    demo.assert_nothing_left()


@pytest.mark.parametrize(("kind", "part"), [(ONE_MACHINE, "hub"), (WITH_ETCD, "traefik")], ids=["hub", "etcd-traefik"])
def test_a_part_that_dies_is_named_with_its_log(demo, part):
    demo.wait_until_open()
    os.kill(demo.pids[part], signal.SIGKILL)
    assert demo.process.wait(STOP_SECONDS) == 1
    demo.wait_for(rf"^{part} was ended by signal 9\. The end of its log:$", 5)
    demo.assert_nothing_left(5)


def test_a_killed_traefik_or_pointsman_comes_back(demo):
    """Pointsman starts its Traefik again, and the hub its Pointsman."""
    address = demo.wait_until_open()
    log_in_and_spawn(address)
    for part in ("traefik", "pointsman"):
        os.kill(demo.pids[part], signal.SIGKILL)
        wait_until(
            f"{part} is back", lambda: requests.get(f"{address}/user/demo-user/api", timeout=5).status_code == 200, 30
        )
    demo.press_ctrl_c()
    assert demo.process.wait(STOP_SECONDS) == 0, demo.said()
    demo.assert_nothing_left(5)


@both_demos
def test_a_part_that_can_not_start_is_named(kind, tmp_path):
    demo = Demo("/bin/false", tmp_path, 8000, kind)
    assert demo.process.wait(START_SECONDS) == 1
    # A hub whose proxy does not start ends, and says why.
    part = "pointsman" if kind is WITH_ETCD else "hub"
    demo.wait_for(rf"^{part} ended with status 1\.", 5)
    assert not [folder for folder in HOME.glob("demo-*") if str(folder) in demo.said()]
