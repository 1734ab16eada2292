"""etcd, Pointsman, Traefik and JupyterHub on one machine, started from the files in `examples/`."""

from .child import Child, PartFailed, wait_until
from .parts import LOOPBACK, Parts, answers, plain_environment
from .places import EXAMPLES, program
from .ports import free_port


class Stack(Parts):
    """The four programs, each started by us."""

    def __init__(self, folder, binary, public_port=None, traefiks=1, hub_version=6, hub_config=None):
        public_ports = [public_port or free_port()] + [free_port() for _ in range(traefiks - 1)]
        super().__init__(folder, binary, hub_config or EXAMPLES / "jupyterhub_config.py", public_ports, hub_version)
        self.pointsman_environment = {}
        # How long a Traefik that is stopped finishes what it has.
        self.grace_seconds = 2
        self.traefik_ports = [free_port() for _ in range(traefiks)]
        self.etcd_port, self.peer_port, self.pages_port = free_port(), free_port(), free_port()

    @property
    def etcd_url(self):
        return f"http://{LOOPBACK}:{self.etcd_port}"

    def steps(self):
        return [
            ("etcd", self.start_etcd),
            ("Pointsman", self.start_pointsman),
            ("Traefik", self.start_traefiks),
            ("JupyterHub", self.start_hub),
        ]

    def table(self):
        addresses = {
            "etcd": self.etcd_url,
            "pointsman": self.api_url,
            "traefik": self.public_url,
            "hub": self.hub_url,
        }
        return [
            (name, self.children[name].pid, address, self.children[name].log) for name, address in addresses.items()
        ]

    # etcd

    def start_etcd(self):
        """Start etcd, on the data that it had before if it is started again."""
        peer = f"http://{LOOPBACK}:{self.peer_port}"
        data = self.place("etcd") / "data"
        command = [
            program("etcd"), "--name", "demo", "--data-dir", data,
            "--listen-client-urls", self.etcd_url, "--advertise-client-urls", self.etcd_url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"demo={peer}",
        ]  # fmt: skip
        child = self.start("etcd", command, plain_environment())
        wait_until("etcd is healthy", answers(f"{self.etcd_url}/health"), 30, [child])
        return child

    # Pointsman

    def settings(self, traefik=None):
        """The variables that bring examples/pointsman.toml to our ports."""
        apis = self.traefik_ports if traefik is None else [self.traefik_ports[traefik]]
        return {
            "POINTSMAN_API_PORT": str(self.api_port),
            "POINTSMAN_ETCD_ENDPOINTS": self.etcd_url,
            "POINTSMAN_TRAEFIK_API": ",".join(f"http://{LOOPBACK}:{port}" for port in apis),
            "POINTSMAN_PORT": str(self.public_ports[traefik or 0]),
            "POINTSMAN_PAGES_PORT": str(self.pages_port),
            "POINTSMAN_PAGES_URL": f"http://{LOOPBACK}:{self.pages_port}",
            "POINTSMAN_ERROR_TARGET": f"http://{LOOPBACK}:{self.hub_port}/hub/error",
            "CONFIGPROXY_AUTH_TOKEN": self.token,
            **self.pointsman_environment,
        }

    def pointsman_command(self, *words):
        return [self.binary, *words, "--config", EXAMPLES / "pointsman.toml"]

    def start_pointsman(self):
        """Start Pointsman and wait until it lives. It is ready only once a Traefik serves its routes."""
        child = self.start("pointsman", self.pointsman_command(), {**plain_environment(), **self.settings()})
        wait_until("Pointsman answers", answers(f"{self.api_url}/healthz"), 20, [child])
        return child

    # Traefik

    @staticmethod
    def traefik_name(number):
        return f"traefik{number or ''}"

    def traefik_config_flags(self, number):
        """More for `pointsman traefik-config`."""
        return []

    def write_traefik_config(self, number):
        """Let Pointsman write the files of one Traefik, and say which file to start it with."""
        place = self.place(self.traefik_name(number))
        child = Child(
            "pointsman traefik-config",
            self.pointsman_command(
                "traefik-config", "--dir", place, "--grace-seconds", str(self.grace_seconds),
                *self.traefik_config_flags(number),
            ),  # fmt: skip
            self.place("logs") / "traefik-config.log",
            env={**plain_environment(), **self.settings(number)},
        ).start()
        if child.process.wait(20) != 0:
            raise PartFailed(
                f"`pointsman traefik-config` failed with status {child.process.returncode}:\n{child.tail()}"
            )
        return place / "traefik.yaml"

    def start_traefik(self, number=0):
        """Start a Traefik and wait until it answers. It has routes once the hub has brought some."""
        config = self.write_traefik_config(number)
        child = self.start(self.traefik_name(number), [program("traefik"), "--configFile", config], plain_environment())
        wait_until(
            "Traefik answers", answers(f"http://{LOOPBACK}:{self.traefik_ports[number]}/api/version"), 20, [child]
        )
        return child

    def wait_until_ready(self):
        """Wait until Pointsman says that all it needs is there."""
        watched = [child for child in self.children.values() if child.is_running()]
        wait_until("Pointsman is ready", answers(f"{self.api_url}/readyz"), 30, watched)

    def start_traefiks(self):
        """Start all of them, and wait until Pointsman says that it is ready."""
        for number in range(len(self.traefik_ports)):
            self.start_traefik(number)
        self.wait_until_ready()

    # The end

    def stop_all(self):
        """Stop everything, in the order that lets each say goodbye to the next."""
        order = ["hub", "pointsman", *(name for name in self.children if name.startswith("traefik")), "etcd"]
        for name in order:
            if name in self.children:
                self.children[name].stop(30 if name == "hub" else 10)
