"""Helm, as the tests call it: a chart and values in, objects and notes or the text of the error out.

Where there is a `helm` on PATH, that is asked; else Helm's library in the Python package helm-sdkpy. Both talk to the
stand-in of `stand_in_api.py`, so that `lookup`, the version of Kubernetes and upgrades can be tried without a cluster.
`POINTSMAN_TEST_HELM` chooses: a path of a program, or `library`.
"""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import yaml

from stand_in_api import CUSTOM_KINDS, KEPT, KINDS, OTHER_KINDS, Scene, StandIn

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "pointsman"
KUBE_VERSION = "1.33.0"


class Refused(Exception):
    """Helm has refused to render. The message is what it said."""


@dataclass
class Rendered:
    """What a chart and its values come to."""

    objects: list = field(repr=False)  # without hooks, in Helm's order
    hooks: list = field(repr=False)  # those of `helm test`, and others
    notes: str = field(repr=False)
    release: dict = field(repr=False)  # all that Helm knows, to begin an upgrade from

    @property
    def everything(self):
        return self.objects + self.hooks

    def of_kind(self, *kinds):
        return [thing for thing in self.everything if thing["kind"] in kinds]

    def one(self, kind, name):
        found = [thing for thing in self.of_kind(kind) if thing["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} objects are {kind} {name}"
        return found[0]


class Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):
    """YAML that may not name a key twice: Kubernetes would take the last one without a word."""


def mapping(loader, node):
    seen = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.YAMLError(f"the key {key.value!r} is there twice{key.start_mark}")
        seen.add(key.value)
    return dict(loader.construct_pairs(node, deep=True))


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)


def load_all(text):
    return [thing for thing in yaml.load_all(text, Loader=Loader) if thing]


def merged(base, more):
    """Values over values, as Helm lays them; a null stays, for Helm itself takes a default away with it."""
    both = dict(base)
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(both.get(key), dict):
            both[key] = merged(both[key], value)
        else:
            both[key] = value
    return both


def values_of(*sources):
    """One set of values out of files and dicts, later ones over earlier ones."""
    values = {}
    for source in sources:
        values = merged(values, source if isinstance(source, dict) else yaml.safe_load(Path(source).read_text()) or {})
    return values


def dotted(pairs):
    """{"a.b": 1} as {"a": {"b": 1}}."""
    values = {}
    for path, value in pairs.items():
        *way, last = path.split(".")
        leaf = {last: value}
        for name in reversed(way):
            leaf = {name: leaf}
        values = merged(values, leaf)
    return values


@cache
def program():
    """The program `helm` to ask, or None for the library."""
    named = os.environ.get("POINTSMAN_TEST_HELM")
    if named == "library":
        return None
    return named or shutil.which("helm")


@cache
def stand_in():
    # Helm keeps what a server has told it in a folder; and the library reads the environment when it is loaded.
    folder = tempfile.TemporaryDirectory(prefix="pointsman-chart-")
    os.environ.update(KUBECACHEDIR=f"{folder.name}/cache", HELM_CACHE_HOME=folder.name, HELM_DATA_HOME=folder.name)
    os.environ.update(HELM_CONFIG_HOME=folder.name, HELM_DRIVER="secret", HELM_NO_PLUGINS="1")
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTP_PROXY", "http_proxy"):
        os.environ.pop(name, None)
    server = StandIn()
    server.folder = folder  # lives as long as the server
    return server


def ask_program(scene, kubeconfig, upgrade, release, chart, values, namespace):
    folder = Path(stand_in().folder.name)
    (folder / "kubeconfig").write_text(kubeconfig)
    (folder / "values.json").write_text(json.dumps(values))
    command = [program(), "upgrade" if upgrade else "install", release, chart, "--namespace", namespace]
    command += ["--values", folder / "values.json", "--dry-run=server", "--output=json", "--disable-openapi-validation"]
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "KUBECONFIG": str(folder / "kubeconfig")},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Refused(done.stderr)
    scene.kept = json.loads(done.stdout)


def ask_library(scene, kubeconfig, upgrade, release, chart, values, namespace):
    import helm_sdkpy

    configuration = helm_sdkpy.Configuration(namespace=namespace, kubeconfig=kubeconfig)
    action = (helm_sdkpy.Upgrade if upgrade else helm_sdkpy.Install)(configuration)
    try:
        asyncio.run(action.run(release, str(chart), values=values, wait=False, timeout=30))
    except helm_sdkpy.HelmError as why:
        if scene.kept is None or KEPT not in str(why):
            raise Refused(str(why)) from None


def render(
    *sources,
    chart=CHART,
    sets=None,
    kube_version=KUBE_VERSION,
    api_versions=tuple(CUSTOM_KINDS),
    existing=(),
    upgrade_from=None,
    namespace="jhub",
    release="pointsman",
):
    """What `helm install` would send, or with `upgrade_from` what `helm upgrade` would. Raises `Refused`.

    `sources` are values files or dicts, `sets` is {"a.b": value}. `api_versions` are those of custom resources that
    the cluster knows (all but OpenShift's, if not given), `existing` the objects that `lookup` finds, `upgrade_from` what `render` gave before.
    """
    values = merged(values_of(*sources), dotted(sets or {}))
    custom = {**CUSTOM_KINDS, **OTHER_KINDS}
    scene = Scene(kube_version, {**KINDS, **{version: custom[version] for version in api_versions}})
    scene.objects = list(existing)
    if upgrade_from is not None:
        before = upgrade_from.release
        scene.previous = {**before, "info": {**before["info"], "status": "deployed"}}
    kubeconfig = stand_in().add(scene, namespace)
    ask = ask_program if program() else ask_library
    ask(scene, kubeconfig, upgrade_from is not None, release, chart, values, namespace)
    found = scene.kept
    hooks = [thing for hook in found.get("hooks") or [] for thing in load_all(hook["manifest"])]
    return Rendered(load_all(found["manifest"]), hooks, found["info"].get("notes", ""), found)


def refusal(*sources, **options):
    """The text with which Helm refuses these values; a failed test if it takes them."""
    try:
        render(*sources, **options)
    except Refused as why:
        return str(why)
    raise AssertionError(f"Helm takes these values: {sources} {options.get('sets') or ''}")


def lint(values, chart=CHART):
    """What `helm lint` complains of with these values, a line for each."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / yaml.safe_load((chart / "Chart.yaml").read_text())["name"]
        shutil.copytree(chart, copy)
        # The library's lint takes no values, so they become the chart's own.
        defaults = yaml.safe_load((copy / "values.yaml").read_text())
        (copy / "values.yaml").write_text(yaml.safe_dump(merged(defaults, values)))
        if program():
            done = subprocess.run([program(), "lint", "--strict", str(copy)], capture_output=True, text=True)
            return done.stdout.splitlines() if done.returncode else []
        import helm_sdkpy

        stand_in()
        configuration = helm_sdkpy.Configuration(namespace="jhub", kubeconfig=None)
        try:
            found = asyncio.run(helm_sdkpy.Lint(configuration).run(str(copy)))
        except helm_sdkpy.HelmError as why:
            return [str(why)]
        complaints = [f"{m.get('Path')}: {m.get('Err')}" for m in found.get("Messages") or [] if m["Severity"] >= 2]
        return complaints + [str(error) for error in found.get("Errors") or []]
