"""A stand-in for the API of Kubernetes, as far as Helm needs it to render a chart.

It tells which kinds there are and how old the cluster is, shows objects to `lookup`, and shows the release that an
upgrade begins from. A new release is kept and refused: it holds all that was rendered, and nothing is left to do then.
"""

import base64
import gzip
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import yaml

KINDS = {
    "v1": {
        "ConfigMap": "configmaps",
        "Namespace": "namespaces",
        "PersistentVolumeClaim": "persistentvolumeclaims",
        "Pod": "pods",
        "Secret": "secrets",
        "Service": "services",
        "ServiceAccount": "serviceaccounts",
    },
    "apps/v1": {"DaemonSet": "daemonsets", "Deployment": "deployments", "StatefulSet": "statefulsets"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "batch/v1": {"CronJob": "cronjobs", "Job": "jobs"},
    "networking.k8s.io/v1": {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "rbac.authorization.k8s.io/v1": {
        "ClusterRole": "clusterroles",
        "ClusterRoleBinding": "clusterrolebindings",
        "Role": "roles",
        "RoleBinding": "rolebindings",
    },
    "scheduling.k8s.io/v1": {"PriorityClass": "priorityclasses"},
}
CUSTOM_KINDS = {
    "cert-manager.io/v1": {"Certificate": "certificates"},
    "gateway.networking.k8s.io/v1": {"HTTPRoute": "httproutes"},
    "monitoring.coreos.com/v1": {
        "PodMonitor": "podmonitors",
        "PrometheusRule": "prometheusrules",
        "ServiceMonitor": "servicemonitors",
    },
}
# What only some clusters have, and charts look for.
OTHER_KINDS = {"security.openshift.io/v1": {"SecurityContextConstraints": "securitycontextconstraints"}}
WITHOUT_NAMESPACE = {"ClusterRole", "ClusterRoleBinding", "Namespace", "PriorityClass", "SecurityContextConstraints"}
KEPT = "the stand-in has kept this release"


@dataclass
class Scene:
    """A cluster as one call of Helm sees it."""

    kube_version: str
    kinds: dict
    objects: list = field(default_factory=list)
    previous: dict | None = None  # the release that an upgrade begins from
    kept: dict | None = None  # the release that Helm wanted to store


def packed(release):
    """A release as Helm stores it in a Secret."""
    return base64.b64encode(base64.b64encode(gzip.compress(json.dumps(release).encode()))).decode()


def unpacked(stored):
    return json.loads(gzip.decompress(base64.b64decode(stored)))


def fields(message):
    """The fields of a protobuf message that have a length: pairs of number and bytes."""

    def number(at):
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value, at

    at = 0
    while at < len(message):
        tag, at = number(at)
        if tag & 7 == 2:
            size, at = number(at)
            yield tag >> 3, message[at : at + size]
            at += size
        else:
            _, at = number(at)


def stored_release(body):
    """The release in the body of a request that creates its Secret, in JSON or in Kubernetes' protobuf."""
    if not body.startswith(b"k8s\x00"):
        return unpacked(base64.b64decode(json.loads(body)["data"]["release"]))
    secret = dict(fields(body[4:]))[2]
    for number, entry in fields(secret):
        pair = dict(fields(entry)) if number == 2 else {}
        if pair.get(1) == b"release":
            return unpacked(pair[2])
    raise ValueError("a Secret without a release")


def status(code, reason, message):
    return code, {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }


def discovery(scene, path):
    """What kinds there are, or None if the path asks for something else."""
    groups = [version for version in scene.kinds if "/" in version]
    if path == "/version":
        major, minor = scene.kube_version.split(".")[:2]
        return {"major": major, "minor": minor, "gitVersion": f"v{scene.kube_version}", "platform": "linux/amd64"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        versions = [{"groupVersion": version, "version": version.split("/")[1]} for version in groups]
        found = [
            {"name": v["groupVersion"].split("/")[0], "versions": [v], "preferredVersion": v} for v in versions
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version not in scene.kinds:
        return None
    resources = [
        {
            "name": plural,
            "singularName": kind.lower(),
            "namespaced": kind not in WITHOUT_NAMESPACE,
            "kind": kind,
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        }
        for kind, plural in scene.kinds[version].items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}


AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def aggregated(scene, path):
    """All kinds below /api or /apis at once, which spares Helm a question for each group."""
    items = []
    for version, kinds in scene.kinds.items():
        if (path == "/api") == ("/" in version):
            continue
        resources = [
            {
                "resource": plural,
                "responseKind": {"group": "", "version": "", "kind": kind},
                "scope": "Cluster" if kind in WITHOUT_NAMESPACE else "Namespaced",
                "singularResource": kind.lower(),
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            }
            for kind, plural in kinds.items()
        ]
        group = version.rpartition("/")[0]
        versions = [{"version": version.rpartition("/")[2], "resources": resources, "freshness": "Current"}]
        items.append({"metadata": {"name": group} if group else {}, "versions": versions})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def get(scene, path, query):
    found = discovery(scene, path)
    if found is not None:
        return 200, found
    root, _, rest = path.partition("/namespaces/")
    words = rest.split("/") if rest else []
    version = root.removeprefix("/apis/").removeprefix("/api/")
    plural = words[1] if len(words) > 1 else "namespaces" if words else root.rsplit("/", 1)[-1]
    selector = query.get("labelSelector", [""])[0]
    if plural == "secrets" and "owner=helm" in selector:
        return 200, {"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": release_secrets(scene)}
    if plural == "secrets" and words[-1].startswith("sh.helm.release.v1."):
        for secret in release_secrets(scene):
            if secret["metadata"]["name"] == words[-1]:
                return 200, secret
    for thing in scene.objects:
        kinds = scene.kinds.get(thing["apiVersion"], {})
        if thing["apiVersion"] == version and kinds.get(thing["kind"]) == plural:
            if thing["metadata"]["name"] == words[-1]:
                return 200, thing
    return status(404, "NotFound", f"{plural} {words[-1] if words else ''} not found")


def release_secrets(scene):
    release = scene.previous
    if release is None:
        return []
    labels = {
        "owner": "helm",
        "name": release["name"],
        "status": "deployed",
        "version": str(release["version"]),
    }
    name = f"sh.helm.release.v1.{release['name']}.v{release['version']}"
    return [
        {
            "kind": "Secret",
            "apiVersion": "v1",
            "type": "helm.sh/release.v1",
            "metadata": {"name": name, "namespace": release["namespace"], "labels": labels, "resourceVersion": "1"},
            "data": {"release": packed(release)},
        }
    ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer goes out in one piece

    def log_message(self, *_):
        pass

    def handle_one(self, body):
        parts = urlsplit(self.path)
        _, key, path = parts.path.split("/", 2)
        scene = self.server.scenes.get(key)
        if scene is None:
            return status(404, "NotFound", "no such scene")
        if self.command == "GET" and f"/{path}" in ("/api", "/apis") and AGGREGATED in self.headers.get("Accept", ""):
            self.content_type = AGGREGATED
            return 200, aggregated(scene, f"/{path}")
        if self.command == "GET":
            return get(scene, f"/{path}", parse_qs(parts.query))
        if self.command == "POST" and path.endswith("/secrets"):
            scene.kept = stored_release(body)
            return status(403, "Forbidden", KEPT)
        return status(405, "MethodNotAllowed", f"{self.command} {path}: the stand-in only renders")

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.content_type = "application/json"
        try:
            code, found = self.handle_one(body)
        except Exception as why:  # the test sees it as Helm's error
            code, found = status(500, "InternalError", f"the stand-in failed: {why!r}")
        content = json.dumps(found).encode()
        self.send_response(code)
        self.send_header("Content-Type", self.content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer


class StandIn:
    """The server. Every scene is a cluster of its own, below a path of its own."""

    def __init__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.scenes = {}
        self.number = 0
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def add(self, scene, namespace):
        """Show a scene; the answer is the kubeconfig that leads to it."""
        self.number += 1
        digest = hashlib.sha256(repr((scene.kube_version, scene.kinds)).encode()).hexdigest()[:8]
        key = f"{self.number}-{digest}"
        self.server.scenes[key] = scene
        server = {"server": f"http://127.0.0.1:{self.server.server_port}/{key}"}
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "stand-in", "cluster": server}],
                "users": [{"name": "tests", "user": {}}],
                "contexts": [
                    {"name": "c", "context": {"cluster": "stand-in", "user": "tests", "namespace": namespace}}
                ],
                "current-context": "c",
            }
        )

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
