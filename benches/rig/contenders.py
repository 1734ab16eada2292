"""What is measured: configurable-http-proxy, Pointsman, two ways of writing etcd by hand."""

import json
import string
import time
from pathlib import Path

from devkit.child import Child, PartFailed, wait_until
from devkit.parts import answers, plain_environment
from devkit.places import program
from devkit.ports import free_port

from .wire import LOOPBACK, Api, Etcd, Failed, Public, at_once, requests_per_second

TOKEN = "benchmark"
PATIENCE_SECONDS = 120


class Contender:
    """A proxy with routes. `add` and `remove` give the seconds until a user sees the change."""

    name = ""
    title = ""

    def __init__(self, folder, targets):
        self.folder = Path(folder) / self.name
        self.folder.mkdir(parents=True)
        self.targets = targets
        self.public_port = free_port()
        self.public = Public(self.public_port)
        self.children = []
        # Asking costs the machine something, and more where each answer takes long anyway.
        self.interval_seconds = 0.001

    def run(self, name, command, **environment):
        child = Child(name, command, self.folder / f"{name}.log", env={**plain_environment(), **environment})
        self.children.append(child)
        return child.start()

    def stop(self):
        for child in reversed(self.children):
            child.stop(10)

    def memory(self):
        """Resident memory of the process that answers the API, in MB."""
        status = Path(f"/proc/{self.main.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def timed(self, change, route, word):
        began = time.perf_counter()
        change()
        self.public.wait_for(route.path, word, PATIENCE_SECONDS, self.interval_seconds)
        return time.perf_counter() - began

    def rate(self, seconds):
        return requests_per_second(self.public_port, "/", 32, seconds)


class OverApi(Contender):
    """A proxy with configurable-http-proxy's REST API."""

    def __init__(self, folder, targets):
        super().__init__(folder, targets)
        self.api_port = free_port()
        # How often a user did not see what the API had said was done.
        self.early_answers = 0

    def client(self):
        return Api(self.api_port, TOKEN)

    def add(self, route):
        return self.timed(lambda: self._say(route, "user"), route, "user")

    def remove(self, route):
        return self.timed(lambda: self._say(route, "hub"), route, "hub")

    def _say(self, route, word):
        if word == "user":
            self.api.add(route, self.targets["user"])
        else:
            self.api.remove(route)
        if self.public.get(route.path) != (200, f"<{word}>"):
            self.early_answers += 1

    def fill(self, routes, workers):
        """Gives the seconds of all together, and of each."""
        began = time.perf_counter()
        each = at_once(workers, routes, self.client, lambda api, route: api.add(route, self.targets["user"]))
        return time.perf_counter() - began, each

    def thin(self, routes, workers):
        at_once(workers, routes, self.client, lambda api, route: api.remove(route))

    def list_seconds(self, number):
        began = time.perf_counter()
        text = self.api.call("GET", "")
        took = time.perf_counter() - began
        if text.count(b'"target"') < number:
            raise Failed(f"{self.title} lists {text.count(b'target')} routes, and has {number}")
        return took


class Chp(OverApi):
    name = "chp"
    title = "configurable-http-proxy"

    def start(self):
        command = [
            program("configurable-http-proxy"), "--ip", LOOPBACK, "--port", self.public_port,
            "--api-ip", LOOPBACK, "--api-port", self.api_port,
            "--default-target", self.targets["hub"], "--log-level", "warn",
        ]  # fmt: skip
        child = self.run("configurable-http-proxy", command, CONFIGPROXY_AUTH_TOKEN=TOKEN)
        self.main = child
        wait_until("CHP answers", answers(f"http://{LOOPBACK}:{self.public_port}/"), 20, [child])
        self.api = self.client()
        return self


class WithEtcd:
    """The etcd of one contender."""

    def start_etcd(self):
        self.etcd_port, peer_port = free_port(), free_port()
        url, peer = f"http://{LOOPBACK}:{self.etcd_port}", f"http://{LOOPBACK}:{peer_port}"
        command = [
            program("etcd"), "--name", "bench", "--data-dir", self.folder / "etcd",
            "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"bench={peer}",
        ]  # fmt: skip
        child = self.run("etcd", command)
        wait_until("etcd is healthy", answers(f"{url}/health"), 30, [child])
        self.etcd = Etcd(self.etcd_port)

    def start_traefik(self, config):
        self.traefik = self.run("traefik", [program("traefik"), "--configFile", config])

    def stop_traefik(self):
        if getattr(self, "traefik", None):
            self.traefik.stop(10)
            self.children.remove(self.traefik)
            self.public.close()

    def pointsman_environment(self, api_port, traefik_port):
        """The settings under which `pointsman` and its `traefik-config` fit this etcd and this Traefik."""
        return {
            "CONFIGPROXY_AUTH_TOKEN": TOKEN,
            "POINTSMAN_IP": LOOPBACK,
            "POINTSMAN_PORT": str(self.public_port),
            "POINTSMAN_API_IP": LOOPBACK,
            "POINTSMAN_API_PORT": str(api_port),
            "POINTSMAN_PAGES_PORT": str(self.pages_port),
            "POINTSMAN_PAGES_URL": f"http://{LOOPBACK}:{self.pages_port}",
            "POINTSMAN_ETCD_ENDPOINTS": f"http://{LOOPBACK}:{self.etcd_port}",
            "POINTSMAN_TRAEFIK_API": f"http://{LOOPBACK}:{traefik_port}",
            "POINTSMAN_LOG_LEVEL": "warn",
        }

    def write_traefik_config(self, binary, environment):
        """Traefik's static configuration as Pointsman recommends it."""
        maker = Child(
            "pointsman traefik-config",
            [binary, "traefik-config", "--dir", self.folder / "traefik", "--grace-seconds", "1"],
            self.folder / "traefik-config.log",
            env={**plain_environment(), **environment},
        ).start()
        if maker.process.wait(20) != 0:
            raise PartFailed(f"pointsman traefik-config failed:\n{maker.tail()}")
        return self.folder / "traefik" / "traefik.yaml"


class Pointsman(WithEtcd, OverApi):
    name = "pointsman"
    title = "Pointsman"

    def __init__(self, folder, targets, binary):
        super().__init__(folder, targets)
        self.binary, self.pages_port, self.traefik_port = binary, free_port(), free_port()

    def start(self):
        self.start_etcd()
        environment = self.pointsman_environment(self.api_port, self.traefik_port)
        config = self.write_traefik_config(self.binary, environment)
        self.start_traefik(config)
        child = self.run("pointsman", [self.binary], **environment)
        self.main = child
        wait_until("Pointsman is ready", answers(f"http://{LOOPBACK}:{self.api_port}/readyz"), 40, [child])
        self.api = self.client()
        self.api.call("POST", "/", f'{{"target": "{self.targets["hub"]}"}}', (201,))
        self.public.wait_for("/", "hub", 20, 0.01)
        return self

    def start_traefik(self, config):
        self.config = config
        super().start_traefik(config)

    def fill_in_the_dark(self, sample, routes, number):
        """Many more routes, `number` in all, while no Traefik looks: it would read every step of it, for minutes.

        The records are copies of one that is there, but for the last: that one is posted, and brings all the others
        into Traefik's keys.
        """
        self.stop_traefik()
        records = {key: value for key, value, _, _ in self.etcd.read("pointsman/hub/")}
        key, value = next(pair for pair in records.items() if pair[0].rstrip("/").endswith(sample.path.rstrip("/")))
        copies = {}
        for route in routes[:-1]:
            there, here = sample.path.rstrip("/"), route.path.rstrip("/")
            copies[key.replace(there, here)] = value.replace(there, here).replace(f'"{sample.user}"', f'"{route.user}"')
        self.etcd.fill(copies)
        # Nobody serves it yet: the first answer may be 503.
        data = json.dumps({"target": self.targets["user"]})
        self.api.call("POST", routes[-1].path, data, (201, 503))
        self.start_traefik(self.config)

        def complete():
            self.list_seconds(number)
            return all(self.public.get(route.path) == (200, "<user>") for route in (routes[0], routes[-1]))

        wait_until(f"{self.title} is filled", complete, PATIENCE_SECONDS, [self.traefik])

    def changed_keys(self, since):
        """What the first transaction after a revision did in Traefik's tree: keys put, and which of them are new."""
        changed = self.etcd.read("traefik/", since + 1)
        first = min(kv[3] for kv in changed)
        puts = {key: value for key, value, _, at in changed if at == first}
        return puts, [key for key, _, made, at in changed if made == at == first]


class ByHand(WithEtcd, Contender):
    """Keys that are written by a plain etcd client, which then asks the public port until the change is there."""

    def __init__(self, folder, targets):
        super().__init__(folder, targets)
        self.pages_port = free_port()

    def load(self, puts, last_path):
        """Other keys, all at once: Traefik is away meanwhile, for it would read each step of it."""
        self.stop_traefik()
        self.etcd.clear("traefik/")
        self.etcd.clear("jupyterhub/")
        self.etcd.fill(puts)
        self.start_traefik(self.config)
        word = "hub" if last_path == "/" else "user"

        def routed():
            return self.public.get(last_path) == (200, f"<{word}>")

        wait_until(f"{self.title} is loaded", routed, PATIENCE_SECONDS, [self.traefik])


class Floor(ByHand):
    """Pointsman's own keys, with nobody in between: what the commit and Traefik's reload cost by themselves."""

    name = "floor"
    title = "raw commit of Pointsman's keys"

    def __init__(self, folder, targets, binary):
        super().__init__(folder, targets)
        self.binary = binary

    def start(self):
        self.start_etcd()
        self.config = self.write_traefik_config(self.binary, self.pointsman_environment(free_port(), free_port()))
        return self

    def add(self, route, puts):
        return self.timed(lambda: self.etcd.commit(puts), route, "user")

    def remove(self, route, puts, new):
        kept = {key: value for key, value in puts.items() if key not in new}
        return self.timed(lambda: self.etcd.commit(kept, keys=new), route, "hub")


class PeerKeys(ByHand):
    """The keys that jupyterhub-traefik-proxy 2.1 writes into etcd for a route, and its static configuration."""

    name = "peer"
    title = "jupyterhub-traefik-proxy's keys"

    def start(self):
        self.start_etcd()
        self.config = self.folder / "traefik.yaml"
        self.config.write_text(
            f"""entryPoints:
  http: {{address: "{LOOPBACK}:{self.public_port}"}}
  auth_api: {{address: "{LOOPBACK}:{free_port()}"}}
api: {{}}
log: {{level: ERROR}}
providers:
  providersThrottleDuration: 0s
  etcd: {{endpoints: ["{LOOPBACK}:{self.etcd_port}"], rootKey: traefik}}
"""
        )
        return self

    def keys(self, path, target, data=None):
        router, service = "router_" + escaped(path), "service_" + escaped(path)
        bare = path.rstrip("/")
        rule = f"( PathPrefix(`{path}`) || Path(`{bare}`) )" if bare else f"PathPrefix(`{path}`)"
        http, own = "traefik/http", f"jupyterhub/routes/{router}"
        return {
            f"{http}/routers/{router}/service": service,
            f"{http}/routers/{router}/rule": rule,
            f"{http}/routers/{router}/entryPoints/0": "http",
            f"{http}/services/{service}/loadBalancer/servers/0/url": target,
            f"{http}/services/{service}/loadBalancer/passHostHeader": "true",
            f"{own}/routespec": path,
            f"{own}/target": target,
            f"{own}/router": router,
            f"{own}/service": service,
            **{f"{own}/data/{key}": value for key, value in (data or {}).items()},
        }

    def route_keys(self, route):
        return self.keys(route.path, self.targets["user"], {"user": route.user, "server_name": route.server})

    def add(self, route):
        return self.timed(lambda: self.etcd.commit(self.route_keys(route)), route, "user")

    def remove(self, route):
        router, service = "router_" + escaped(route.path), "service_" + escaped(route.path)
        gone = [f"traefik/http/routers/{router}/", f"traefik/http/services/{service}/", f"jupyterhub/routes/{router}/"]
        return self.timed(lambda: self.etcd.commit(prefixes=gone), route, "hub")


def escaped(path):
    """Its names for routers and services: every byte that is no letter, digit or hyphen as _XX."""
    safe = (string.ascii_letters + string.digits + "-").encode()
    return "".join(chr(byte) if byte in safe else f"_{byte:02X}" for byte in path.encode())
