#!/usr/bin/env python3
"""Kill Pointsman, Traefik, or both, again and again under load, and look for what got lost.

    kill_loop.py --rounds 200 --seed 7

Writers add, change and delete routes through the API and keep a ledger of what was answered by 201
or 204. Readers come in by the public port. A small supervisor starts a killed Pointsman again, as
the hub does. After each kill:

- the ports are free (if Pointsman was killed), and the next Pointsman opens the folder;
- traffic is back within 2 s, counted from the start of the new Pointsman, or from the kill of Traefik;
- once `/readyz` says so, every route of the ledger leads to its server at the first request;
- when the writers rest, the table is the ledger, and no deleted route is served.
"""

import argparse
import contextlib
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from devkit.child import Child, PartFailed, child_that_runs, wait_until  # noqa: E402
from devkit.guard import Stopped, run_guarded  # noqa: E402
from devkit.parts import LOOPBACK, plain_environment  # noqa: E402
from devkit.places import HOME  # noqa: E402
from devkit.ports import free_port, is_free  # noqa: E402
from load import Api, Backends, Ledger, Readers, Writers, ask  # noqa: E402

RECOVERY_SECONDS_MAX = 2
READY_SECONDS_MAX = 20
# How long the supervisor takes to notice, at most; a hub looks every 5 s.
NOTICE_SECONDS_MAX = 0.3
KINDS = ("pointsman", "traefik", "both")


class Proxy:
    """A Pointsman without etcd that is started again when it was killed."""

    def __init__(self, binary, folder, started):
        self.folder = Path(folder)
        self.started = started
        self.token = "kill-loop"
        self.port, self.api_port = free_port(), free_port()
        self.data = self.folder / "data"
        command = [
            binary, "--ip", LOOPBACK, "--port", self.port, "--api-ip", LOOPBACK, "--api-port", self.api_port,
            "--data-dir", self.data, "--log-level", "warn",
        ]  # fmt: skip
        environment = {**plain_environment(), "CONFIGPROXY_AUTH_TOKEN": self.token}
        self.child = Child("pointsman", command, self.folder / "pointsman.log", env=environment, cwd=self.folder)

    def start(self):
        began = time.monotonic()
        self.started(self.child.start().pid)
        return began

    def traefik(self):
        return child_that_runs(self.child.pid, "traefik")

    def is_ready(self):
        return ask(self.api_port, "/readyz")[0] == 200

    def wait_until_ready(self):
        wait_until("Pointsman is ready", self.is_ready, READY_SECONDS_MAX, [self.child], 0.002)
        return time.monotonic()

    def files(self):
        """What lies in the folder, by name."""
        return sorted(str(path.relative_to(self.data)) for path in self.data.rglob("*") if path.is_file())

    def wait_until_ports_are_free(self):
        wait_until("both ports are free", lambda: is_free(self.port) and is_free(self.api_port), 2, (), 0.002)


def is_gone(pid):
    """Whether a process has ended. If we have adopted it, nobody else collects its end."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return not Path(f"/proc/{pid}").exists()


class Loop:
    """The kills, and what is looked at after each."""

    def __init__(self, proxy, ledger, writers, readers, seed):
        self.proxy, self.ledger, self.writers, self.readers = proxy, ledger, writers, readers
        self.chance = random.Random(seed)
        self.pool = ThreadPoolExecutor(8)
        self.recoveries = {kind: [] for kind in KINDS}
        self.ready = {kind: [] for kind in KINDS}
        self.checked = 0

    def round(self):
        """One kill, and all that follows."""
        # Anything between "in the middle of a write" and "some dozens of writes later".
        self.writers.wait_for(self.chance.randrange(1, 40))
        kind = self.chance.choice(KINDS)
        with self.readers.disturbed():
            began = getattr(self, f"kill_{kind}")()
            back = self.wait_for_traffic()
            ready = self.proxy.wait_until_ready()
        self.sweep()
        self.recoveries[kind].append(back - began)
        self.ready[kind].append(ready - began)
        assert back - began < RECOVERY_SECONDS_MAX, f"after the kill of {kind} traffic was away for {back - began:.2f} s"
        self.rest()
        return kind, back - began, ready - began

    def kill_traefik(self):
        """Traefik alone. The clock runs from here on."""
        old = wait_until("Traefik runs", self.proxy.traefik, 5, [self.proxy.child])
        began = time.monotonic()
        os.kill(old, signal.SIGKILL)
        return began

    def kill_pointsman(self):
        """Pointsman, with which Linux ends its Traefik. The clock runs from the start of the next."""
        traefik = self.proxy.traefik()
        self.proxy.child.kill()
        return self.start_again(traefik)

    def kill_both(self):
        """First Traefik, and Pointsman while it is busy with that."""
        traefik = self.proxy.traefik()
        if traefik:
            os.kill(traefik, signal.SIGKILL)
        time.sleep(self.chance.uniform(0, 0.1))  # any moment of Traefik's restart may be the one
        traefik = self.proxy.traefik()
        self.proxy.child.kill()
        return self.start_again(traefik)

    def start_again(self, traefik):
        if traefik:
            wait_until("Traefik is gone too", lambda: is_gone(traefik), 2, (), 0.002)
        self.proxy.wait_until_ports_are_free()
        time.sleep(self.chance.uniform(0, NOTICE_SECONDS_MAX))
        return self.proxy.start()

    def wait_for_traffic(self):
        """Wait for the first right answer by the public port."""

        def condition():
            route = self.ledger.some_steady(self.chance)
            return route is None or self.readers.look(route) == "right"

        wait_until("a route is served again", condition, READY_SECONDS_MAX, [self.proxy.child], 0.002)
        return time.monotonic()

    def sweep(self):
        """Ask for every route once, while the writers go on: what is steady must be right at the first request."""
        for route, seen in zip(self.ledger.names(), self.pool.map(self.readers.look, self.ledger.names())):
            assert seen in ("right", "moving"), f"{route} was acknowledged as {self.ledger.wanted(route)}, but is {seen}"
            self.checked += seen == "right"

    def rest(self):
        """Let the writers finish, and compare all that there is."""
        with self.writers.resting():
            status, table = Api(self.proxy.api_port, self.proxy.token).table()
            assert status == 200, f"GET /api/routes: {status}"
            wanted = self.ledger.table()
            differs = {name for name in {*wanted, *table} if wanted.get(name) != table.get(name)}
            assert not differs, f"the table differs: { {n: (wanted.get(n), table.get(n)) for n in differs} }"
            self.sweep()


def run(binary, folder, rounds, seed, say, started=lambda pid: None):
    """The whole loop. Gives the lines of the report; raises AssertionError for what got lost.

    `started` is told of each Pointsman.
    """
    backends = Backends()
    proxy = Proxy(binary, folder, started)
    ledger = Ledger(backends)
    try:
        proxy.start()
        proxy.wait_until_ready()
        writers = Writers(ledger, proxy.api_port, proxy.token, seed)
        readers = Readers(ledger, proxy.port, seed)
        loop = Loop(proxy, ledger, writers, readers, seed)
        try:
            writers.wait_for(200)
            loop.rest()
            first_files = proxy.files()
            for number in range(1, rounds + 1):
                kind, back, ready = loop.round()
                say(f"  {number:>4}  {kind:<10} traffic back after {back:6.3f} s, ready after {ready:6.3f} s")
                assert not writers.complaints and not readers.complaints, [*writers.complaints, *readers.complaints]
            assert proxy.files() == first_files, "files were left behind"
        finally:
            writers.stop()
            readers.stop()
            loop.pool.shutdown()
        assert proxy.child.stop(10), "it had to be killed at the end"
        proxy.wait_until_ports_are_free()
        return report(loop, seed)
    except (AssertionError, PartFailed) as why:
        raise AssertionError(f"{why} (seed {seed})\n{proxy.child.tail()}") from why
    finally:
        proxy.child.stop(10)
        backends.stop()


def report(loop, seed):
    """What happened, as a table."""
    lines = [f"seed {seed}", "", "| killed | rounds | traffic back: median | worst | ready: median | worst |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for kind in KINDS:
        times, ready = loop.recoveries[kind], loop.ready[kind]
        if times:
            numbers = [statistics.median(times), max(times), statistics.median(ready), max(ready)]
            lines.append(f"| {kind} | {len(times)} | " + " | ".join(f"{number:.3f} s" for number in numbers) + " |")
    writers, readers = loop.writers, loop.readers
    lines += [
        "",
        f"changes acknowledged: {dict(writers.acknowledged)}; tries that failed: {dict(writers.failed)}",
        f"requests of readers: {dict(readers.quiet)}; while something was killed: {dict(readers.loud)}",
        f"routes looked at after kills: {loop.checked}; lost or wrong: 0",
    ]
    return lines


def main():
    parser = argparse.ArgumentParser(description="Kill Pointsman, Traefik or both under load, and look for losses.")
    parser.add_argument("--rounds", type=int, default=200, help="how many kills (default: 200)")
    parser.add_argument("--seed", type=int, help="what chance begins with (default: another one each time)")
    parser.add_argument("--binary", required=True, help="the pointsman to kill")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    HOME.mkdir(exist_ok=True)
    folder = tempfile.mkdtemp(prefix="kill-loop-", dir=HOME)

    def work():
        try:
            lines = run(arguments.binary, folder, arguments.rounds, seed, lambda line: print(line, flush=True))
            print("\n" + "\n".join(lines))
        except AssertionError as why:
            print(f"\nLOST: {why}")
            return 1
        except Stopped:
            print("\nStopped")
            return 130
        return 0

    return run_guarded(work, folder)


if __name__ == "__main__":
    sys.exit(main())
