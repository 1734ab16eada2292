"""Where the chart is played: a player of rendered manifests, or a real cluster by helm and kubectl.

A *player* is any program that runs the workloads of manifests as containers on this machine and is called as

    PLAYER MANIFEST --project NAME --namespace NAMESPACE --publish SERVICE:PORT=HOSTPORT ... --control PORT

with an interface for us on 127.0.0.1 at the control port: `GET /status` gives its pods, `POST /apply` reads the manifest
again and rolls what has changed, `POST /delete?pod=P` deletes a pod and `POST /kill?pod=P` kills its containers.
"""

import json
import os
import shlex
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import yaml
from devkit.child import Child, wait_until
from devkit.parts import plain_environment
from devkit.ports import free_port

NAMESPACE, RELEASE = "jhub", "pointsman"
PATIENCE_SECONDS = 300
UP_SECONDS = 90
TLS_PORT = 8443


class Rolling:
    """A change of the cluster that goes on in a thread of its own, until it is done."""

    def __init__(self, change):
        self.error = None
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self._run, args=(change,), daemon=True)
        self.thread.start()

    def _run(self, change):
        try:
            change()
        except Exception as error:  # told by whoever waits for it
            self.error = error

    def wait(self):
        """Wait for its end, and give the seconds that it took."""
        self.thread.join(PATIENCE_SECONDS)
        if self.thread.is_alive():
            raise TimeoutError(f"not done after {PATIENCE_SECONDS} s")
        if self.error:
            raise self.error
        return time.monotonic() - self.began


def part_of(pod):
    """Which part of the chart a pod belongs to, by its name."""
    word = pod.removeprefix(f"{RELEASE}-").partition("-")[0]
    return word if word in ("etcd", "traefik") else "pointsman"


class Player:
    """The chart as containers on this machine."""

    # One that is killed is started again where it was.
    restarts_after_a_kill = 1

    def __init__(self, command, folder, render, values, name="pointsman-played"):
        self.command, self.folder, self.render, self.values = shlex.split(command), Path(folder), render, values
        self.name = name
        self.public_port, self.api_port, self.control_port = free_port(), free_port(), free_port()
        self.manifest = self.folder / "manifest.yaml"

    def write(self):
        rendered = self.render(self.values)
        self.manifest.write_text(yaml.safe_dump_all(rendered.everything))

    def publish(self, port):
        service = f"{RELEASE}-public:{port}={self.public_port}"
        return ["--publish", service, "--publish", f"{RELEASE}-api:8001={self.api_port}"]

    def up(self, port=80):
        """Start everything and wait until it is ready."""
        self.write()
        command = [*self.command, self.manifest, "--project", self.name, "--namespace", NAMESPACE]
        command += [*self.publish(port), "--control", str(self.control_port), "--timeout", str(UP_SECONDS)]
        log = self.folder / "player.log"
        # Its own folders tell where it keeps the pods' volumes.
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        scratch.chmod(0o755)
        environment = {**plain_environment(), "TMPDIR": str(scratch)}
        self.child = Child("the player", command, log, env=environment, cwd=self.folder).start()
        wait_until("the player has everything up", lambda: self.pods(), UP_SECONDS + 30, [self.child], 0.2)

    def children(self):
        return [self.child]

    def prove(self):
        """`helm test`: begin anew, run the test pods once all is ready, and end."""
        self.write()
        command = [*self.command, self.manifest, "--project", f"{self.name}-test", "--namespace", NAMESPACE, "--run-tests"]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        return done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    def _control(self, path="/status", method="GET"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.control_port}{path}", method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE_SECONDS) as answer:
            status = json.load(answer)
        if status["problems"]:
            raise RuntimeError(f"the player has problems: {status['problems']}")
        return status

    def pods(self):
        """The pods by name, and whether each is ready."""
        return {name: pod["ready"] and not pod["terminating"] for name, pod in self._control()["pods"].items()}

    def restarts(self):
        return sum(pod["restarts"] for pod in self._control()["pods"].values())

    def upgrade(self, values):
        """`helm upgrade`, without waiting for its end."""
        self.values = values
        self.write()
        return Rolling(lambda: self._control("/apply", "POST"))

    def delete(self, pod):
        """`kubectl delete pod`, without waiting for its end."""
        return Rolling(lambda: self._control(f"/delete?pod={pod}", "POST"))

    def kill(self, pod):
        return Rolling(lambda: self._control(f"/kill?pod={pod}", "POST"))

    def replace_secret(self, files):
        """Bring new files into the Traefik pods' volumes, as the kubelet does when a Secret has changed.

        It switches one link in the folder, whatever else lies there.
        """
        for volume in self.folder.glob("scratch/*/pods/*-traefik-*/vol/*"):
            if not set(files) <= {each.name for each in volume.iterdir()}:
                continue
            fresh = Path(tempfile.mkdtemp(prefix="..", dir=volume))
            fresh.chmod(0o755)
            for each in volume.iterdir():
                if not each.name.startswith(".."):
                    content = files.get(each.name) or each.read_bytes()
                    (fresh / each.name).write_bytes(content)
            link = volume / "..data_tmp"
            link.symlink_to(fresh.name)
            os.replace(link, volume / "..data")
            for each in volume.iterdir():
                if not each.name.startswith("..") and not each.is_symlink():
                    pointer = volume / f"..link-{each.name}"
                    pointer.symlink_to(f"..data/{each.name}")
                    os.replace(pointer, each)

    def tls_addresses(self):
        """Where each Traefik is reached by itself, with TLS."""
        pods = self._control()["pods"]
        return [(pod["ip"], TLS_PORT) for name, pod in pods.items() if part_of(name) == "traefik" and pod["ready"]]

    def down(self):
        self.child.stop(60)


class Kubectl:
    """A cluster of one node whose ports 30080 and 30081 are this machine's, as tests/played/kind.yaml has it."""

    public_port, api_port = 30080, 30081
    # One that is killed has a successor, for the image has nothing to kill its own process with.
    restarts_after_a_kill = 0

    def __init__(self, folder, chart, values):
        self.folder, self.chart, self.values = Path(folder), chart, values
        self.forwards = []

    def _run(self, *command, given=None):
        done = subprocess.run(
            [str(word) for word in command], input=given, capture_output=True, text=True, timeout=2 * PATIENCE_SECONDS
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command[:6]))}: {done.stderr[-2000:]}")
        return done.stdout

    def children(self):
        return self.forwards

    def _helm(self):
        file = self.folder / "values.yaml"
        file.write_text(yaml.safe_dump(self.values))
        self._run(
            "helm", "upgrade", "--install", RELEASE, self.chart, "--namespace", NAMESPACE, "--create-namespace",
            "--values", file, "--wait", "--timeout", f"{PATIENCE_SECONDS}s",
        )  # fmt: skip

    def up(self, port=80):
        self._helm()

    def prove(self):
        self.up()
        try:
            return True, self._run("helm", "test", RELEASE, "--namespace", NAMESPACE, "--logs")
        except RuntimeError as error:
            return False, str(error)
        finally:
            self.down()

    def _pods(self):
        return json.loads(self._run("kubectl", "--namespace", NAMESPACE, "get", "pods", "--output=json"))["items"]

    def pods(self):
        ready = {}
        for pod in self._pods():
            conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
            ready[pod["metadata"]["name"]] = (
                conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
            )
        return ready

    def restarts(self):
        return sum(each["restartCount"] for pod in self._pods() for each in pod["status"].get("containerStatuses", []))

    def upgrade(self, values):
        self.values = values
        return Rolling(self._helm)

    def delete(self, pod):
        return Rolling(lambda: self._run("kubectl", "--namespace", NAMESPACE, "delete", "pod", pod))

    def kill(self, pod):
        delete = ("kubectl", "--namespace", NAMESPACE, "delete", "pod", pod, "--grace-period=0", "--force")
        return Rolling(lambda: self._run(*delete))

    def replace_secret(self, files):
        secret = {
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": self.values["tls"]["secretName"], "namespace": NAMESPACE},
            "stringData": {name: content.decode() for name, content in files.items()},
        }  # fmt: skip
        self._run("kubectl", "apply", "--filename=-", given=json.dumps(secret))

    def tls_addresses(self):
        for pod in [name for name, ready in self.pods().items() if part_of(name) == "traefik" and ready]:
            port = free_port()
            command = ["kubectl", "--namespace", NAMESPACE, "port-forward", f"pod/{pod}", f"{port}:{TLS_PORT}"]
            child = Child(f"the way to {pod}", command, self.folder / f"{pod}.log", env=os.environ, cwd=self.folder).start()
            self.forwards.append(child)
            wait_until(f"{pod} is reached", lambda at=port: socket.create_connection(("127.0.0.1", at)).close() or at, 30)
            yield "127.0.0.1", port

    def down(self):
        for forward in self.forwards:
            forward.stop()
        self._run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
