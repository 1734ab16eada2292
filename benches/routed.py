#!/usr/bin/env python3
"""From POST to really routed: Pointsman beside configurable-http-proxy and jupyterhub-traefik-proxy's keys.

    make bench                    the whole run, under 10 minutes
    make bench ARGS=--quick       up to 1,000 routes, under 90 seconds

All contenders run at the same time and are measured in turn, so that a busy minute hits each of them.
"Routed" is what a user sees: the clock stops when a GET on the public port is answered by the new server.

* configurable-http-proxy: POST to its API, until routed.
* Pointsman: POST to its API, until routed. It answers when it is routed, so the first GET must be right.
* raw commit: the very keys that Pointsman wrote, committed by a plain etcd client to another etcd and Traefik. Nobody
  can be faster with this layout; what Pointsman adds is its own work.
* jupyterhub-traefik-proxy's keys: the same with the keys of that package (2.1) and its static configuration. Its own
  work, such as asking Traefik's password-protected API until the route is there, is *not* in it.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from devkit.child import Child, PartFailed, wait_until  # noqa: E402
from devkit.guard import run_guarded  # noqa: E402
from devkit.parts import plain_environment  # noqa: E402
from devkit.places import Missing  # noqa: E402
from devkit.ports import free_port  # noqa: E402
from rig import report  # noqa: E402
from rig.contenders import Chp, Floor, PeerKeys, Pointsman  # noqa: E402
from rig.routes import routes  # noqa: E402
from rig.wire import LOOPBACK, Failed, Public  # noqa: E402

BINARY = ROOT / "target/release/pointsman"
# Routes: samples of each contender.
FULL = {1000: 30, 100: 40, 10_000: 6}
QUICK = {1000: 8, 100: 10}
RESTORED = 1000
RESTORE_WORKERS = 10
FILL_WORKERS = 250
LOAD_SECONDS, QUICK_LOAD_SECONDS = 5, 2
LOAD_ROUNDS = 3


class Run:
    """One run: the contenders, the time that is left, and what has been found."""

    def __init__(self, folder, binary, quick):
        self.quick = quick
        self.ends = time.monotonic() + (80 if quick else 570)
        self.sizes = QUICK if quick else FULL
        # The last ones are for the samples: never part of the table while another one is measured.
        everything = routes(max(self.sizes) + max(self.sizes.values()))
        self.all_routes = everything[: max(self.sizes)]
        self.samples = everything[max(self.sizes) :]
        self.present = []
        ports = {word: free_port() for word in ("hub", "user")}
        targets = {word: f"http://{LOOPBACK}:{port}" for word, port in ports.items()}
        self.backend = Child(
            "backend",
            [sys.executable, ROOT / "benches/rig/backend.py", *(f"{port}={word}" for word, port in ports.items())],
            Path(folder) / "backend.log",
            env=plain_environment(),
        )
        self.backend_port = ports["hub"]
        self.chp = Chp(folder, targets)
        self.floor = Floor(folder, targets, binary)
        self.pointsman = Pointsman(folder, targets, binary)
        self.peer = PeerKeys(folder, targets)
        self.contenders = [self.chp, self.floor, self.pointsman, self.peer]
        self.titles = {each.name: each.title for each in self.contenders}
        self.results = {"changes": {}, "rates": {}, "restore": {}, "answers": {}, "early_answers": {}}

    def say(self, text):
        left = max(0, self.ends - time.monotonic())
        print(f"[{left:4.0f} s left] {text}", flush=True)

    def go(self):
        self.backend.start()
        wait_until("the backend answers", lambda: Public(self.backend_port).get("/")[0] == 200, 10, [self.backend])
        for each in self.contenders:
            self.say(f"Starting {each.title}")
            each.start()
        self.restore()
        for size, samples in self.sizes.items():
            self.bring_to(size)
            self.measure_changes(size, samples)
            if size == 1000 and not self.quick:
                continue
            self.measure_rates(size)
        self.measure_the_rest()
        for each in (self.chp, self.pointsman):
            self.results["early_answers"][each.name] = each.early_answers
        return self.results

    def restore(self):
        """A hub that starts with an empty proxy sends all its routes, ten at a time."""
        self.present = self.all_routes[:RESTORED]
        for each in (self.chp, self.pointsman):
            seconds, calls = each.fill(self.present, RESTORE_WORKERS)
            each.public.wait_for(self.present[-1].path, "user", 30, 0.005)
            self.say(f"{each.title}: {RESTORED} routes restored in {seconds:.2f} s")
            self.results["restore"][each.name] = {"routes": RESTORED, "seconds": seconds, "each": calls}

    def bring_to(self, size):
        """Give every contender this many routes."""
        self.say(f"Bringing all to {size:,} routes")
        wanted = self.all_routes[:size]
        if len(self.present) < size:
            more = wanted[len(self.present) :]
            self.chp.fill(more, FILL_WORKERS)
            self.pointsman.fill_in_the_dark(self.present[0], more, size)
        elif len(self.present) > size:
            for each in (self.chp, self.pointsman):
                each.thin(self.present[size:], FILL_WORKERS)
        self.present = wanted
        self.floor.load(self.settled_tree(), wanted[-1].path)
        keys = self.peer.keys("/", self.peer.targets["hub"])
        for route in wanted:
            keys.update(self.peer.route_keys(route))
        self.peer.load(keys, wanted[-1].path)

    def settled_tree(self):
        """Pointsman's keys for Traefik, once it has stopped to move routes between buckets."""
        seen = []

        def still():
            now = self.pointsman.etcd.revision()
            seen.append((time.monotonic(), now))
            since = [at for at, revision in seen if revision == now][0]
            return time.monotonic() - since > 1.5

        wait_until("Pointsman's keys stay as they are", still, 60, interval_seconds=0.1)
        return {key: value for key, value, _, _ in self.pointsman.etcd.read("traefik/")}

    def measure_changes(self, size, samples):
        """Each contender in turn adds a route; then each in turn removes it."""
        added = {each.name: [] for each in self.contenders}
        removed = {each.name: [] for each in self.contenders}
        for each in self.contenders:
            each.interval_seconds = 0.001 if size < 5000 else 0.005
        began = time.monotonic()
        for number, route in enumerate(self.samples[:samples]):
            left, a_round = self.ends - time.monotonic(), (time.monotonic() - began) / max(number, 1)
            # The requests per second at the end want their time too.
            if number and left < 2 * a_round + (15 if self.quick else 60):
                self.say(f"Only {number} samples: the time is short")
                break
            before = self.pointsman.etcd.revision()
            added["pointsman"].append(self.pointsman.add(route))
            puts, new = self.pointsman.changed_keys(before)
            added["chp"].append(self.chp.add(route))
            added["floor"].append(self.floor.add(route, puts))
            added["peer"].append(self.peer.add(route))
            removed["pointsman"].append(self.pointsman.remove(route))
            removed["chp"].append(self.chp.remove(route))
            removed["floor"].append(self.floor.remove(route, puts, new))
            removed["peer"].append(self.peer.remove(route))
        self.results["changes"][size] = {"add": added, "remove": removed}
        for name in ("chp", "pointsman"):
            self.results["answers"][name] = self.results["answers"].get(name, 0) + 2 * len(added[name])
        medians = ", ".join(f"{self.titles[name]} {report.median(all_) * 1000:,.1f}" for name, all_ in added.items())
        self.say(f"{size:,} routes, ms to add one: {medians}")

    def measure_rates(self, size):
        contenders = (self.chp, self.pointsman, self.peer)
        for _ in range(LOAD_ROUNDS):
            for each in contenders:
                rate = each.rate(QUICK_LOAD_SECONDS if self.quick else LOAD_SECONDS)
                self.results["rates"].setdefault(each.name, {}).setdefault(size, []).append(rate)
        rates = {each.title: report.median(self.results["rates"][each.name][size]) for each in contenders}
        self.say(f"{size:,} routes, requests/s: " + ", ".join(f"{title} {rate:,.0f}" for title, rate in rates.items()))

    def measure_the_rest(self):
        size = len(self.present)
        self.results["list_size"] = size
        self.results["list"] = {each.name: [] for each in (self.chp, self.pointsman)}
        for _ in range(15):
            for each in (self.chp, self.pointsman):
                self.results["list"][each.name].append(each.list_seconds(size))
        self.results["memory"] = {each.name: each.memory() for each in (self.chp, self.pointsman)}

    def stop(self):
        for each in self.contenders:
            each.stop()
        self.backend.stop()


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="fewer routes and samples")
    words.add_argument(
        "--binary", type=Path, default=ROOT / "target/release/pointsman", help="the pointsman to measure"
    )
    words.add_argument("--json", type=Path, help="write every single number into this file")
    words.add_argument("--markdown", type=Path, help="write the tables into this file as well")
    words = words.parse_args()
    if not words.binary.exists():
        sys.exit(f"{words.binary} is not there. `make bench` builds it; --binary names another one.")
    folder = Path(tempfile.mkdtemp(prefix="pointsman-bench-"))

    def work():
        run = Run(folder, words.binary.resolve(), words.quick)
        try:
            results = run.go()
        except (Failed, PartFailed, Missing, OSError) as error:
            print(f"\nNo result: {error}", file=sys.stderr)
            return 1
        finally:
            run.stop()
        tables = report.markdown(results, run.titles)
        print("\n" + tables)
        if words.markdown:
            words.markdown.write_text(tables + "\n")
        if words.json:
            words.json.write_text(json.dumps(results, indent=1) + "\n")
        return 0

    return run_guarded(work, folder)


if __name__ == "__main__":
    sys.exit(main())
