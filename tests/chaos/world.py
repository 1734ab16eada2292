"""Three etcd, three Traefik, three Pointsman on loopback, and the links between them."""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

from cuts import Cuts
from devkit.child import Child
from devkit.parts import plain_environment
from devkit.places import program
from devkit.ports import free_port
from devkit.with_parent import die_with_parent
from wire import LOOPBACK, ask, ask_json, end

EACH = range(3)
KINDS = ("etcd", "traefik", "pointsman")
BACKENDS = 8
# As kubelet looks, with the numbers of a common manifest.
PROBE_INTERVAL_SECONDS = 1.0
PROBE_FAILURES = 2
# Small, so that it can be filled; more than what a few runs need.
ETCD_QUOTA_BYTES = 48 << 20
START_SECONDS = 40


class WorldFailed(Exception):
    """The world can't be built, or does not get well."""


async def until(what, condition, seconds, interval=0.05):
    """Wait until an async condition is true; its last value is told if it never is."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            last = await condition()
            if last:
                return last
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            last = repr(error)
        if time.monotonic() > deadline:
            raise WorldFailed(f"waited {seconds} s in vain until {what}; last seen: {last!r}")
        await asyncio.sleep(interval)


class Probe:
    """One Traefik as kubelet sees it."""

    def __init__(self, world, number):
        self.world, self.number = world, number
        self.ready = False
        self.failures = 0
        self.draining = False  # it is about to be stopped in good order, and gets nobody new
        self.last = None

    async def turn(self, ready):
        if ready != self.ready:
            self.ready = ready
            await self.world.publish()

    async def drain(self):
        """As a pod that is being deleted: no new connections from now on, whatever the probe says."""
        self.draining = True
        await self.turn(False)

    async def lost(self):
        """Its process has ended: it has to show again that it is ready."""
        self.failures = PROBE_FAILURES
        self.draining = False
        await self.turn(False)

    async def run(self):
        while True:
            began = time.monotonic()
            process = self.world.part("traefik", self.number).process
            self.last, _ = await ask(self.world.public[self.number], "/_chp_healthz", timeout=1)
            if process is self.world.part("traefik", self.number).process and process and process.poll() is None:
                if self.draining:
                    pass
                elif self.last == 200:
                    self.failures = 0
                    await self.turn(True)
                else:
                    self.failures += 1
                    if self.failures >= PROBE_FAILURES:
                        await self.turn(False)
            # A start-up is looked at more often, as by a startup probe; what is ready at the usual pace.
            pause = PROBE_INTERVAL_SECONDS if self.ready or self.failures == 0 else 0.25
            await asyncio.sleep(max(0.05, pause - (time.monotonic() - began)))


class World:
    """All of it. Parts are named by kind and number: `("etcd", 0)`."""

    def __init__(self, folder, binary, say=lambda line: None, clock_shim=None):
        self.folder, self.binary, self.say = Path(folder), str(binary), say
        self.token = secrets.token_hex(16)
        self.clock_shim = clock_shim
        self.parts = {}
        self.kills = []  # (kind, number, when it was killed)
        self.starts = []
        self.expected_dead = set()
        self.cluster_state = "new"
        self.probes = [Probe(self, n) for n in EACH]
        self.tasks = []
        self.cuts = None
        self.client = [free_port() for _ in EACH]
        self.peer = [free_port() for _ in EACH]
        self.peer_link = [free_port() for _ in EACH]
        self.relay = [free_port() for _ in EACH]
        self.public = [free_port() for _ in EACH]
        self.private = [free_port() for _ in EACH]
        self.api = [free_port() for _ in EACH]
        self.pages = [free_port() for _ in EACH]
        self.backends = [free_port() for _ in range(BACKENDS)]
        self.users, self.pages_service = free_port(), free_port()
        self.links = {}
        for n in EACH:
            self._link(f"peer-{n}", self.peer[n], self.peer_link[n])
            for m in EACH:
                self._link(f"pointsman-{n}-etcd-{m}", self.client[m])
                self._link(f"traefik-{n}-etcd-{m}", self.client[m])
                self._link(f"pointsman-{n}-traefik-{m}", self.private[m])
        self._link("pages", self.pages_service)
        self.help = subprocess.run([self.binary, "--help"], capture_output=True, text=True, check=True).stdout

    def _link(self, name, to, port=None):
        self.links[name] = {"name": name, "port": port or free_port(), "to": to}

    def url(self, link):
        return f"http://{LOOPBACK}:{self.links[link]['port']}"

    def has_flag(self, flag):
        """Whether this Pointsman knows a setting: the world also runs with an older one."""
        return f"{flag} " in self.help or f"{flag}[" in self.help

    @property
    def has_relay(self):
        """Whether this Pointsman can stand between a Traefik and etcd."""
        return "etcd-relay" in self.help

    def part(self, kind, number):
        return self.parts[kind, number]

    # Starting

    async def start_links(self):
        """The process with the links, balancers and backends: first of all, for it takes most of the ports."""
        parent = os.getpid()

        def before_exec():
            die_with_parent()
            if os.getppid() != parent:
                os._exit(1)

        plan = {
            "links": list(self.links.values()),
            "balancers": [
                {"name": "users", "port": self.users, "targets": []},
                {"name": "pages", "port": self.pages_service, "targets": self.pages},
            ],
            "backends": self.backends,
        }
        self.logs.mkdir(parents=True, exist_ok=True)
        self.cuts = await Cuts.start(plan, self.logs / "cuts.log", before_exec)

    async def start(self):
        """All nine, each until it answers. Traefik is ready once there are routes."""
        for n in EACH:
            self._prepare_etcd(n)
            self._prepare_pointsman(n)
        for n in EACH:
            self.parts["etcd", n].start()
        await self.etcd_well(START_SECONDS)
        for n in EACH:
            self.parts["pointsman", n].start()
        self._write_traefik_configs()
        for n in EACH:
            self._prepare_relay(n)
            if self.has_relay:
                self.parts["relay", n].start()
            self.parts["traefik", n].start()
        for n in EACH:
            await self.after_start("etcd", n)
        self.tasks = [asyncio.ensure_future(probe.run()) for probe in self.probes]

    @property
    def logs(self):
        return self.folder / "logs"

    def _child(self, kind, number, command, environment=None):
        place = self.folder / f"{kind}-{number}"
        place.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{kind}-{number}.log"
        environment = {**plain_environment(), **(environment or {})}
        self.parts[kind, number] = Child(f"{kind}-{number}", command, log, env=environment, cwd=place)

    def data(self, number):
        """The data folder of a member of etcd."""
        return self.folder / f"etcd-{number}" / "data"

    def _prepare_etcd(self, n):
        members = ",".join(f"etcd-{m}=http://{LOOPBACK}:{self.peer_link[m]}" for m in EACH)
        client = f"http://{LOOPBACK}:{self.client[n]}"
        self._child("etcd", n, [
            program("etcd"), "--name", f"etcd-{n}", "--data-dir", self.data(n),
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", f"http://{LOOPBACK}:{self.peer[n]}",
            "--initial-advertise-peer-urls", f"http://{LOOPBACK}:{self.peer_link[n]}",
            "--initial-cluster", members, "--initial-cluster-token", "chaos",
            "--initial-cluster-state", self.cluster_state, "--quota-backend-bytes", ETCD_QUOTA_BYTES,
            "--auto-compaction-mode", "revision", "--auto-compaction-retention", 1000, "--log-level", "warn",
        ])  # fmt: skip

    def settings(self, n):
        """What Pointsman and the configuration of its Traefik have in common. `n` is of the one or the other."""
        return [
            "--pages-url", self.url("pages"), "--pages-ip", LOOPBACK, "--pages-port", self.pages[n],
            "--api-ip", LOOPBACK, "--api-port", self.api[n],
            "--entry-point", f"web={LOOPBACK}:{self.public[n]}",
        ]  # fmt: skip

    def _prepare_pointsman(self, n):
        command = [
            self.binary,
            "--etcd-endpoints", ",".join(self.url(f"pointsman-{n}-etcd-{m}") for m in EACH),
            "--traefik-api", ",".join(self.url(f"pointsman-{n}-traefik-{m}") for m in EACH),
            *self.settings(n),
        ]  # fmt: skip
        if self.has_flag("--snapshot-dir"):
            command += ["--snapshot-dir", self.folder / f"pointsman-{n}" / "snapshot"]
        if self.has_flag("--own-root-key"):
            command += ["--own-root-key"]
        if self.has_flag("--allow-revision-bump"):
            command += ["--allow-revision-bump"]
        environment = {"CONFIGPROXY_AUTH_TOKEN": self.token}
        if self.clock_shim:
            self.clock_file(n).parent.mkdir(parents=True, exist_ok=True)
            self.clock_file(n).write_bytes(bytes(8))
            environment.update(LD_PRELOAD=str(self.clock_shim), CHAOS_CLOCK=str(self.clock_file(n)))
        self._child("pointsman", n, command, environment)

    def _etcd_of_traefik(self, n):
        return ["--etcd-endpoints", ",".join(self.url(f"traefik-{n}-etcd-{m}") for m in EACH)]

    def _prepare_relay(self, n):
        if self.has_relay:
            listen = f"{LOOPBACK}:{self.relay[n]}"
            self._child("relay", n, [self.binary, "etcd-relay", "--listen", listen, *self._etcd_of_traefik(n)])

    def helper(self, name, command):
        """A program that does harm for a fault; it ends with us at the latest."""
        return Child(name, command, self.logs / f"{name}.log", env=plain_environment(), cwd=self.folder).start()

    def clock_file(self, n):
        """Where a Pointsman with the clock's shim finds by how many seconds its clock is wrong."""
        return self.folder / f"pointsman-{n}" / "clock"

    def _write_traefik_configs(self):
        for n in EACH:
            place = self.folder / f"traefik-{n}"
            place.mkdir(parents=True, exist_ok=True)
            command = [
                self.binary, "traefik-config", "--dir", place, "--grace-seconds", 2,
                "--private-address", f"{LOOPBACK}:{self.private[n]}",
                *self._etcd_of_traefik(n),
                "--traefik-api", f"http://{LOOPBACK}:{self.private[n]}", *self.settings(n),
            ]  # fmt: skip
            if self.has_relay:
                command += ["--etcd-relay", f"{LOOPBACK}:{self.relay[n]}"]
            environment = {**plain_environment(), "CONFIGPROXY_AUTH_TOKEN": self.token}
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)
            if done.returncode != 0:
                raise WorldFailed(f"pointsman traefik-config failed: {done.stderr}")
            self._child("traefik", n, [program("traefik"), "--configFile", place / "traefik.yaml"])

    async def after_start(self, kind, number):
        """A process has a new number: the links tell members of etcd apart by it."""
        if kind == "etcd":
            pids = [self.parts["etcd", m].pid for m in EACH if self.parts["etcd", m].is_running()]
            for m in EACH:
                await self.cuts.tell_apart(f"peer-{m}", pids)

    # One process

    def links_to(self, kind, number):
        """The links that lead to a part: nobody listens there when it is dead."""
        if kind == "etcd":
            return [f"{who}-{n}-etcd-{number}" for who in ("pointsman", "traefik") for n in EACH] + [f"peer-{number}"]
        if kind == "traefik":
            return [f"pointsman-{n}-traefik-{number}" for n in EACH]
        return []

    async def kill(self, kind, number, how=signal.SIGKILL, patience=15):
        """End one. With SIGTERM it may finish what it has."""
        child = self.parts[kind, number]
        self.expected_dead.add((kind, number))
        began = time.monotonic()
        child.send(how)
        if how == signal.SIGKILL:
            child.process.wait()
        else:
            try:
                await until(f"{child.name} ends", lambda: _soon(not child.is_running()), patience, 0.02)
            except WorldFailed:
                # etcd may hang when it is stopped while it is losing its peers. Whoever runs it kills it then, and so do we.
                if kind != "etcd":
                    raise
                child.send(signal.SIGKILL)
                child.process.wait()
        self.kills.append((kind, number, began, time.monotonic()))
        for link in self.links_to(kind, number):
            await self.cuts.set(link, "refuse")
        if kind == "traefik":
            await self.probes[number].lost()
            if self.has_relay:
                # It stands beside its Traefik, and goes with it.
                self.expected_dead.add(("relay", number))
                self.parts["relay", number].send(signal.SIGKILL)
                self.parts["relay", number].process.wait()

    async def revive(self, kind, number):
        """Start it again, on the data that it had."""
        child = self.parts[kind, number]
        if child.is_running():
            return
        for link in self.links_to(kind, number):
            await self.cuts.set(link, "pass")
        if kind == "traefik" and self.has_relay:
            self.parts["relay", number].start()
            self.expected_dead.discard(("relay", number))
        child.start()
        self.starts.append((kind, number, time.monotonic()))
        self.expected_dead.discard((kind, number))
        await self.after_start(kind, number)

    def stop(self, kind, number):
        self.parts[kind, number].send(signal.SIGSTOP)

    def go_on(self, kind, number):
        self.parts[kind, number].send(signal.SIGCONT)

    def dead(self):
        """Those that ended although nobody here ended them."""
        return [
            f"{child.name} ended by itself ({child.process.returncode}):\n{child.tail()}"
            for key, child in self.parts.items()
            if key not in self.expected_dead and child.process is not None and not child.is_running()
        ]

    # How it is

    async def publish(self):
        """Tell the users' balancer who is ready."""
        await self.cuts.targets("users", [self.public[p.number] for p in self.probes if p.ready])

    async def is_etcd_well(self):
        """All members answer, and agree on a leader."""
        answers = [await ask(self.client[n], "/health", timeout=3) for n in EACH]
        return all(status == 200 and b'"true"' in body for status, body in answers)

    async def etcd_well(self, seconds=20):
        await until("all members of etcd are healthy", self.is_etcd_well, seconds)

    async def etcd(self, number, path, content=None, timeout=10):
        """A call of one member's HTTP interface."""
        return await ask_json(self.client[number], f"/v3/{path}", content, timeout)

    async def leader(self):
        """Which member leads, by its number; None if nobody knows."""
        for n in EACH:
            try:
                status = await self.etcd(n, "maintenance/status", timeout=2)
                members = await self.etcd(n, "cluster/member/list", timeout=2)
            except RuntimeError:
                continue
            names = {each["ID"]: each.get("name", "") for each in members["members"]}
            name = names.get(status.get("leader"), "")
            if name.startswith("etcd-"):
                return int(name[-1])
        return None

    async def revision(self):
        for n in EACH:
            try:
                return int((await self.etcd(n, "maintenance/status", timeout=2))["header"]["revision"])
            except RuntimeError:
                continue
        return None

    async def pointsman_well(self, seconds=30):
        async def condition():
            return all([(await ask(self.api[n], "/readyz", timeout=3))[0] == 200 for n in EACH])

        await until("all Pointsmans are ready", condition, seconds)

    async def close(self):
        await end(self.tasks)
        for key in sorted(self.parts, reverse=True):
            child = self.parts[key]
            if child.process is not None:
                child.stop(0.1, signal.SIGKILL)
        if self.cuts is not None:
            self.cuts.process.stdin.close()
            try:
                await asyncio.wait_for(self.cuts.process.wait(), 5)
            except asyncio.TimeoutError:
                self.cuts.process.kill()
                await self.cuts.process.wait()

    def replace_etcd_data(self, number, source=None):
        """Remove a member's data, or put other data in its place."""
        target = self.data(number)
        shutil.rmtree(target, ignore_errors=True)
        if source is not None:
            shutil.copytree(source, target)


async def _soon(value):
    return value
