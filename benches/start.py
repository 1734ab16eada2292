#!/usr/bin/env python3
"""How long Pointsman without etcd takes to start: from its process to `/readyz`, and to the first routed request.

    make bench-start
    make bench-start ARGS="--samples 9 --routes 20000"

Three folders: an empty one, one with 10,000 routes after a clean stop, and the same after a kill. Each
sample starts on a copy of its own. Then all routes are told once more, as a hub does when it has started
its proxy anew: nothing changes, and that should cost little.
"""

import argparse
import contextlib
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from devkit.child import Child, PartFailed, wait_until  # noqa: E402
from devkit.guard import run_guarded  # noqa: E402
from devkit.parts import plain_environment  # noqa: E402
from devkit.places import HOME, Missing  # noqa: E402
from devkit.ports import free_port  # noqa: E402
from rig.report import table  # noqa: E402
from rig.routes import routes  # noqa: E402
from rig.wire import LOOPBACK, Api, Client, Failed, Public, at_once  # noqa: E402

BINARY = ROOT / "target/release/pointsman"
TOKEN = "benchmark"
FILL_WORKERS = 250
# JupyterHub has that many calls to its proxy open at once.
HUB_WORKERS = 10
PATIENCE_SECONDS = 60
GOALS = {"empty": 1, "stopped": 2, "killed": 2}


class Proxy:
    """A Pointsman on a folder."""

    def __init__(self, binary, data, log):
        self.port, self.api_port = free_port(), free_port()
        command = [
            binary, "--ip", LOOPBACK, "--port", self.port, "--api-ip", LOOPBACK, "--api-port", self.api_port,
            "--data-dir", data, "--log-level", "warn",
        ]  # fmt: skip
        self.child = Child("pointsman", command, log, env={**plain_environment(), "CONFIGPROXY_AUTH_TOKEN": TOKEN})

    def start(self):
        """Start it, and give the seconds until it calls itself ready."""
        began = time.perf_counter()
        self.child.start()
        wait_until("Pointsman is ready", self.is_ready, PATIENCE_SECONDS, [self.child], 0.002)
        return time.perf_counter() - began

    def is_ready(self):
        return Client(self.api_port).ask("GET", "/readyz")[0] == 200


class Bench:
    """The folders, and the samples taken on copies of them."""

    def __init__(self, folder, binary, number):
        self.folder, self.binary = Path(folder), binary
        self.port = free_port()
        self.routes = routes(number)
        self.backend = Child(
            "backend", [sys.executable, ROOT / "benches/rig/backend.py", f"{self.port}=user"], self.folder / "backend.log"
        )

    def proxy(self, data):
        return Proxy(self.binary, data, self.folder / "pointsman.log")

    def prepare(self):
        """Make the three folders."""
        self.backend.start()
        (self.folder / "empty").mkdir(mode=0o700)
        filled = self.folder / "killed"
        proxy = self.proxy(filled)
        proxy.start()
        self.tell(proxy, FILL_WORKERS)
        proxy.child.kill()
        shutil.copytree(filled, self.folder / "stopped")
        proxy = self.proxy(self.folder / "stopped")
        proxy.start()
        if not proxy.child.stop(30):
            raise Failed("Pointsman had to be killed")

    def tell(self, proxy, workers):
        """Add all routes, so many at a time, and give the seconds that it took."""
        began, target = time.perf_counter(), f"http://{LOOPBACK}:{self.port}"
        at_once(workers, self.routes, lambda: Api(proxy.api_port, TOKEN), lambda client, route: client.add(route, target))
        return time.perf_counter() - began

    def sample(self, kind):
        """One start on a copy: the seconds to /readyz. The first request after it must be right."""
        with self.started(kind) as (proxy, took):
            if kind != "empty":
                seen = Public(proxy.port).get(self.routes[-1].path)
                if seen != (200, "<user>"):
                    raise Failed(f"ready, and {self.routes[-1].path} is {seen}")
            return took

    def sample_told_again(self):
        """The seconds until a proxy that knows all routes has been told them once more."""
        with self.started("killed") as (proxy, _):
            return self.tell(proxy, HUB_WORKERS)

    @contextlib.contextmanager
    def started(self, kind):
        """A proxy on a copy of a folder, and the seconds that its start took."""
        copy = self.folder / "copy"
        shutil.copytree(self.folder / kind, copy)
        proxy = self.proxy(copy)
        try:
            yield proxy, proxy.start()
        finally:
            proxy.child.send(signal.SIGTERM)
            proxy.child.process.wait(30)
            shutil.rmtree(copy)


def work(arguments, folder):
    bench = Bench(folder, arguments.binary, arguments.routes)
    names = {
        "empty": "an empty folder",
        "stopped": f"{arguments.routes:,} routes, after a clean stop",
        "killed": f"{arguments.routes:,} routes, after a kill",
    }
    try:
        print(f"Adding {arguments.routes:,} routes", flush=True)
        bench.prepare()
        rows, missed = [], []
        for kind, name in names.items():
            samples = [bench.sample(kind) for _ in range(arguments.samples)]
            middle = statistics.median(samples)
            print(f"  {name}: {' '.join(f'{each:.2f}' for each in samples)} s", flush=True)
            rows.append([name, f"{middle:.2f} s", f"{max(samples):.2f} s", f"{GOALS[kind]} s"])
            if middle > GOALS[kind]:
                missed.append(name)
        told = [bench.sample_told_again() for _ in range(arguments.samples)]
        print(f"  all routes told again: {' '.join(f'{each:.2f}' for each in told)} s", flush=True)
        print("\n" + table(["start on", "ready after: median", "worst", "goal"], rows))
        each = statistics.median(told) / arguments.routes * 1000
        print(f"\nAll told again, {HUB_WORKERS} at a time: {statistics.median(told):.2f} s, {each:.2f} ms a route.")
        if missed:
            print("\nThe goal is missed on: " + "; ".join(missed))
        return 1 if missed else 0
    except (Failed, PartFailed, Missing) as why:
        print(f"\n{why}")
        return 1


def main():
    parser = argparse.ArgumentParser(description="How long Pointsman without etcd takes to start.")
    parser.add_argument("--samples", type=int, default=5, help="starts on each folder (default: 5)")
    parser.add_argument("--routes", type=int, default=10_000, help="routes in the filled folders (default: 10000)")
    parser.add_argument("--binary", default=BINARY, help=f"the pointsman (default: {BINARY})")
    arguments = parser.parse_args()
    HOME.mkdir(exist_ok=True)
    folder = tempfile.mkdtemp(prefix="bench-start-", dir=HOME)
    return run_guarded(lambda: work(arguments, folder), folder)


if __name__ == "__main__":
    sys.exit(main())
