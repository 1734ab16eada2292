"""Several of each on one machine: etcd, Pointsman and Traefik, each kind behind one address, and a JupyterHub."""

import contextlib
import json
import signal
import urllib.request
from pathlib import Path

from .balancer import Balancer
from .child import Child, wait_until
from .parts import LOOPBACK, answers, plain_environment, status_of
from .places import program
from .ports import free_port
from .stack import Stack

HUB = "hub"


class Cluster(Stack):
    """The parts are named by kind and number, `etcd-0`, and can be taken away and brought back one by one.

    Three addresses stay whatever happens: the users', the API's for the hub, and that of pages for Traefik.
    """

    def __init__(self, folder, binary, public_port=None, hub_config=None, etcds=3, pointsmen=2, traefiks=2):
        super().__init__(folder, binary, traefiks=traefiks, hub_config=hub_config)
        self.etcd_ports = [(free_port(), free_port()) for _ in range(etcds)]
        self.replica_ports = [(free_port(), free_port()) for _ in range(pointsmen)]
        apis, pages = zip(*self.replica_ports)
        self.users = Balancer(public_port or free_port(), self._named("traefik", self.public_ports), "/_chp_healthz")
        self.api = Balancer(self.api_port, self._named("pointsman", apis), "/readyz")
        self.pages = Balancer(self.pages_port, self._named("pointsman", pages), "/_chp_healthz")
        self.balancers = (self.users, self.api, self.pages)
        # Beside each Traefik, for its client never leaves a member of etcd that hangs.
        self.relay_ports = [free_port() for _ in range(traefiks)]
        self.relays = {}

    @staticmethod
    def _named(kind, values):
        return {f"{kind}-{number}": value for number, value in enumerate(values)}

    @property
    def public_url(self):
        return self.users.url

    @property
    def addresses(self):
        """The address of each part that can be taken away."""
        return {
            **self._named("etcd", [f"http://{LOOPBACK}:{client}" for client, _ in self.etcd_ports]),
            **self._named("pointsman", [f"http://{LOOPBACK}:{api}" for api, _ in self.replica_ports]),
            **self._named("traefik", [f"http://{LOOPBACK}:{port}" for port in self.public_ports]),
            HUB: self.hub_url,
        }

    def steps(self):
        return [
            ("three addresses", self.start_balancers),
            (f"etcd, {len(self.etcd_ports)} members", self.start_etcds),
            (f"Pointsman, {len(self.replica_ports)} replicas", self.start_pointsmen),
            (f"Traefik, {len(self.traefik_ports)} replicas", self.start_traefiks),
            ("JupyterHub", self.start_hub),
            ("all in rotation", self.wait_until_all_well),
        ]

    def start_balancers(self):
        for balancer in self.balancers:
            balancer.start()

    def start_part(self, name):
        """Start one part again, on the data that it had, without waiting for more than that it lives."""
        kind, _, number = name.partition("-")
        for balancer in self.balancers:
            if name in balancer.backends:
                balancer.distrust(name)
        return {
            "etcd": self.launch_etcd,
            "pointsman": self.start_pointsman,
            "traefik": self.start_traefik,
            HUB: lambda _: self.start_hub(),
        }[kind](int(number or 0))

    def is_well(self, name):
        """Whether a part does its work: an exception says why not."""
        kind, address = name.partition("-")[0], self.addresses[name]
        path = {"etcd": "/health", "pointsman": "/readyz", "traefik": "/_chp_healthz", HUB: "/hub/api"}[kind]
        return answers(address + path)()

    def wait_until_well(self, name, seconds=30):
        """Wait until a part does its work again, and gets its share of connections."""
        wait_until(f"{name} is well", lambda: self.is_well(name), seconds, [self.children[name]])
        for balancer in self.balancers:
            if name in balancer.backends:
                wait_until(f"{name} gets connections", lambda: balancer.is_in(name), 10)

    def wait_until_all_well(self):
        for name in self.children:
            self.wait_until_well(name)

    def is_stopped(self, name):
        """Whether a part is held by SIGSTOP."""
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{self.children[name].pid}/stat").read_text()
            return stat.rpartition(")")[2].split()[0] == "T"
        return False

    def describe(self, name):
        """How a part that runs is."""
        kind = name.partition("-")[0]
        if kind == "etcd":
            return self._role(name)
        if kind == "traefik":
            return self.users.describe(name)
        return self._readiness(name) if kind == "pointsman" else "runs"

    def targets(self, table):
        """Paths and targets of a table as the API gives it, sorted."""
        return sorted((path, record["target"]) for path, record in json.loads(table).items())

    # etcd

    def launch_etcd(self, number):
        """Start one member. It is healthy once most members are there."""
        peers = [f"http://{LOOPBACK}:{peer}" for _, peer in self.etcd_ports]
        client = self.addresses[f"etcd-{number}"]
        members = ",".join(f"{name}={peer}" for name, peer in self._named("etcd", peers).items())
        name = f"etcd-{number}"
        command = [
            program("etcd"), "--name", name, "--data-dir", self.place(name) / "data", "--log-level", "warn",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peers[number], "--initial-advertise-peer-urls", peers[number],
            "--initial-cluster", members, "--initial-cluster-state", "new", "--initial-cluster-token", "demo",
        ]  # fmt: skip
        return self.start(name, command, plain_environment())

    def start_etcds(self):
        names = [f"etcd-{number}" for number in range(len(self.etcd_ports))]
        for number in range(len(names)):
            self.launch_etcd(number)
        for name in names:
            self.wait_until_well(name)

    def _role(self, name):
        """Leader or follower."""
        request = urllib.request.Request(self.addresses[name] + "/v3/maintenance/status", b"{}", method="POST")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=1) as answer:
            status = json.load(answer)
        leader = status.get("leader", "0")
        if leader == "0":
            return "has no leader"
        return "leader" if leader == status["header"]["member_id"] else "follower"

    # Pointsman

    def replica_settings(self, number):
        api, pages = self.replica_ports[number]
        return {**self.settings(), "POINTSMAN_API_PORT": str(api), "POINTSMAN_PAGES_PORT": str(pages)}

    def settings(self, traefik=None):
        etcd = ",".join(f"http://{LOOPBACK}:{client}" for client, _ in self.etcd_ports)
        return {**super().settings(traefik), "POINTSMAN_ETCD_ENDPOINTS": etcd}

    def start_pointsman(self, number=0):
        """Start one replica and wait until it lives."""
        name = f"pointsman-{number}"
        environment = {**plain_environment(), **self.replica_settings(number)}
        child = self.start(name, self.pointsman_command(), environment)
        wait_until(f"{name} answers", answers(self.addresses[name] + "/healthz"), 20, [child])
        return child

    def start_pointsmen(self):
        for number in range(len(self.replica_ports)):
            self.start_pointsman(number)

    def _readiness(self, name):
        """What a replica says about itself, shortly."""
        status, body = status_of(self.addresses[name] + "/readyz", timeout_seconds=1)
        if status == 200:
            return "ready"
        return "not ready: " + "; ".join(sorted(set(json.loads(body)["missing"].values())))

    # Traefik

    @staticmethod
    def traefik_name(number):
        return f"traefik-{number}"

    def traefik_config_flags(self, number):
        return ["--etcd-relay", f"{LOOPBACK}:{self.relay_ports[number]}"]

    def start_traefik(self, number=0):
        self.start_relay(number)
        return super().start_traefik(number)

    def start_relay(self, number):
        """Start what carries one Traefik's connections to etcd, if it doesn't run."""
        relay = self.relays.get(number)
        if relay is not None and relay.is_running():
            return
        name = f"relay-{number}"
        command = self.pointsman_command("etcd-relay", "--listen", f"{LOOPBACK}:{self.relay_ports[number]}")
        environment = {**plain_environment(), **self.settings(number)}
        log = self.place("logs") / f"{name}.log"
        self.relays[number] = Child(name, command, log, env=environment, cwd=self.place(name)).start()

    def wait_until_ready(self):
        """Wait until every replica says that all it needs is there."""
        for name in self._named("pointsman", self.replica_ports):
            self.wait_until_well(name)

    def table(self):
        return [(name, child.pid, self.addresses[name], child.log) for name, child in self.children.items()]

    # The end

    def stop_all(self):
        """Stop everything, kind by kind, in the order that lets each say goodbye to the next."""
        for kind in (HUB, "pointsman", "traefik", "etcd"):
            children = [child for name, child in self.children.items() if name.partition("-")[0] == kind]
            # The last members of etcd would try for seconds to hand over to those that are gone.
            last_word = signal.SIGKILL if kind == "etcd" else signal.SIGTERM
            for child in children:
                child.send(signal.SIGCONT)
                child.send(last_word)
            for child in children:
                child.stop(30 if kind == HUB else 10, number=last_word)
        for relay in self.relays.values():
            relay.stop(10)
        for balancer in self.balancers:
            balancer.stop()
