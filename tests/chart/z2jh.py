"""Zero to JupyterHub, as far as our chart has to do with it: facts in our own words, its chart, its hub's configuration.

`make test-z2jh` holds the facts against the real chart, so that the tests which need it not may rely on them.
"""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import yaml
from engine import CHART, ROOT, render
from workloads import all_pods, of_kind

EXAMPLES = ROOT / "examples" / "z2jh"
RELEASE = "jhub"

# How its objects mean its proxy's pods, and the ports of these by name.
PROXY = {"component": "proxy", "app": "jupyterhub", "release": RELEASE}
HUB = {**PROXY, "component": "hub"}
USER = {**PROXY, "component": "singleuser-server"}
# Port of the Service, and the name of the pods' port behind it.
SERVICES = {"proxy-api": [(8001, "api")], "proxy-public": [(80, "http")]}
# Pods that carry this get through its policies, or say whom they call.
MAY_CALL_HUB = "hub.jupyter.org/network-access-hub"
MAY_CALL_USERS = "hub.jupyter.org/network-access-singleuser"
CALLS_API = "hub.jupyter.org/network-access-proxy-api"
TOKEN = {"name": "hub", "key": "hub.config.ConfigurableHTTPProxy.auth_token"}
# What its template gives to CHP, with `$(HUB_SERVICE_PORT)` filled in.
FLAGS = [
    "--ip=", "--api-ip=", "--api-port=8001", "--default-target=http://hub:8081", "--error-target=http://hub:8081/hub/error",
]  # fmt: skip
FLAGS_PLAIN = ["--port=8000"]
FLAGS_TLS = [
    "--port=8443", "--redirect-port=8000", "--redirect-to=443",
    "--ssl-key=/etc/chp/tls/tls.key", "--ssl-cert=/etc/chp/tls/tls.crt",
]  # fmt: skip
FLAGS_MORE = ["--log-level=debug", "--host-routing"]


def values(name):
    """A values file of the examples."""
    return yaml.safe_load((EXAMPLES / name).read_text())


def lines_of_values(name):
    """How many lines an administrator has to write."""
    lines = (EXAMPLES / name).read_text().splitlines()
    return len([line for line in lines if line.strip() and not line.lstrip().startswith("#")])


def policies():
    """Its NetworkPolicies of hub and users' servers, as far as they are about pods."""

    def policy(name, labels, into, out):
        return {
            "kind": "NetworkPolicy",
            "metadata": {"name": name},
            "spec": {
                "podSelector": {"matchLabels": labels},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {into[0]: "true"}}}], "ports": [{"port": into[1]}]}],
                "egress": [{"to": [{"podSelector": {"matchLabels": to}}], "ports": [{"port": port}]} for to, port in out],
            },
        }

    hub = policy("hub", HUB, (MAY_CALL_HUB, "http"), [(PROXY, 8001), (USER, 8888)])
    # To private addresses the hub may go by default, wherever they are: to our pods, too.
    hub["spec"]["egress"].append({"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]})
    return [hub, policy("singleuser", USER, (MAY_CALL_USERS, "notebook-port"), [(HUB, 8081), (PROXY, 8000)])]


# The real chart


def chart():
    """The folder of its chart: `Z2JH_CHART`, or what `scripts/dev-env z2jh` has fetched."""
    place = Path(os.environ.get("Z2JH_CHART") or ROOT / ".pointsman" / "z2jh" / "jupyterhub")
    if not (place / "Chart.yaml").exists():
        raise AssertionError(f"{place} is no chart. Fetch it by scripts/dev-env z2jh, or name its folder by Z2JH_CHART")
    return place


def can_switch_chp_off(place):
    schema = json.loads((place / "values.schema.json").read_text())
    return "enabled" in schema["properties"]["proxy"]["properties"]["chp"]["properties"]


def with_switch(folder):
    """Its chart with `proxy.chp.enabled`. A release that lacks it gets a copy that has it: CHP's three objects under an `if`."""
    if can_switch_chp_off(chart()):
        return chart()
    place = Path(folder) / "jupyterhub"
    if place.exists():
        return place
    shutil.copytree(chart(), place)
    path = place / "values.schema.json"
    schema = json.loads(path.read_text())
    schema["properties"]["proxy"]["properties"]["chp"]["properties"]["enabled"] = {"type": "boolean"}
    path.write_text(json.dumps(schema))
    path = place / "values.yaml"
    defaults = yaml.safe_load(path.read_text())
    defaults["proxy"]["chp"]["enabled"] = True
    path.write_text(yaml.safe_dump(defaults))
    for name in ("deployment", "netpol", "pdb"):
        path = place / "templates" / "proxy" / f"{name}.yaml"
        path.write_text(f"{{{{ if .Values.proxy.chp.enabled }}}}\n{path.read_text()}\n{{{{ end }}}}\n")
    return place


def rendered(*sources, place=None, sets=None):
    return render(*sources, chart=place or chart(), release=RELEASE, sets=sets)


def umbrella(folder, place):
    """The umbrella chart with both charts in it, as `helm dependency update` would leave it."""
    copy = Path(folder) / "umbrella"
    shutil.copytree(EXAMPLES / "umbrella", copy)
    (copy / "charts").mkdir()
    shutil.copytree(place, copy / "charts" / "jupyterhub")
    shutil.copytree(CHART, copy / "charts" / "pointsman")
    return copy


# The hub's configuration

LOADS = """
import builtins, io, json, os, sys, types
mounted, place = "/usr/local/etc/jupyterhub", sys.argv[1]

def inside(path):
    path = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    return place + path[len(mounted):] if isinstance(path, str) and path.startswith(mounted) else path

for module, name in ((builtins, "open"), (io, "open"), (os.path, "exists"), (os.path, "isdir")):
    def patched(path, *more, own=getattr(module, name), **options):
        return own(inside(path), *more, **options)
    setattr(module, name, patched)

class Anything(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name)
    def __call__(self, *_, **__):
        return self

# Parts of the hub's image that have no say in what its proxy is.
for name in ("kubernetes_asyncio", "kubernetes_asyncio.client", "kubespawner", "pycurl", "tornado.curl_httpclient"):
    sys.modules[name] = Anything(name)
sys.path.insert(0, place)
arguments, sys.argv = sys.argv, ["jupyterhub"]
from tornado.httpclient import AsyncHTTPClient
AsyncHTTPClient.configure = lambda *_, **__: None
from jupyterhub.app import JupyterHub
from jupyterhub.spawner import SimpleLocalProcessSpawner
sys.modules["kubespawner"].KubeSpawner = SimpleLocalProcessSpawner
app = JupyterHub()
app.load_config_file(place + "/jupyterhub_config.py")
from jupyterhub.proxy import ConfigurableHTTPProxy
proxy = ConfigurableHTTPProxy(config=app.config)
sys.stdout = sys.__stdout__
print("RESULT " + json.dumps({
    "api_url": proxy.api_url,
    "should_start": proxy.should_start,
    "token": proxy.auth_token,
    "check_running_interval": proxy.check_running_interval,
    "last_activity_interval": app.config.JupyterHub.last_activity_interval,
}))
"""


def hub_settings(things, folder, hub=6):
    """What z2jh's own configuration makes of the proxy, run with a real JupyterHub on what is mounted into the hub's pod."""
    place = Path(folder) / "mounted"
    shutil.rmtree(place, ignore_errors=True)
    (place / "config").mkdir(parents=True)
    (place / "secret").mkdir()
    objects = {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}
    for name, text in objects["ConfigMap", "hub"]["data"].items():
        (place / "config" / name).write_text(text)
        if name.endswith(".py"):
            (place / name).write_text(text)
    secret = {name: base64.b64decode(text) for name, text in objects["Secret", "hub"]["data"].items()}
    for name, text in secret.items():
        (place / "secret" / name).write_bytes(text)
    environment = {"PATH": os.environ["PATH"], "HOME": str(place)}
    (hub_pod,) = [pods for pods in all_pods(things) if pods.owner["metadata"]["name"] == "hub" and pods.stays]
    for variable in hub_pod.spec["containers"][0]["env"]:
        source = variable.get("valueFrom", {}).get("secretKeyRef")
        if source and source["name"] == "hub":
            environment[variable["name"]] = secret[source["key"]].decode()
        elif "value" in variable:
            environment[variable["name"]] = str(variable["value"])
    for service in of_kind(things, "Service"):
        name = service["metadata"]["name"].upper().replace("-", "_")
        environment[f"{name}_SERVICE_PORT"] = str(service["spec"]["ports"][0]["port"])
        environment[f"{name}_SERVICE_HOST"] = "10.0.0.1"
    python = ROOT / ".pointsman" / f"hub{hub}" / "bin" / "python"
    done = subprocess.run(
        [str(python), "-c", LOADS, str(place)], env=environment, cwd=place, capture_output=True, text=True, timeout=60
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert done.returncode == 0 and found, f"z2jh's configuration was not loaded:\n{done.stdout}\n{done.stderr}"
    return json.loads(found[-1].removeprefix("RESULT "))

