"""What every rendering of the chart must keep to. Each check takes all objects and gives complaints, none if all is well."""

import math
import re

from workloads import Z2JH_LABELS, all_pods, matches, meant, named, of_kind, pod_selector

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def pod_security(things):
    """The level `restricted` of Kubernetes' pod security standards, and a root file system that can't be written."""
    for pods in all_pods(things):
        spec, whole = pods.spec, pods.spec.get("securityContext", {})
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(key):
                yield f"{pods.name}: {key}"
        if whole.get("sysctls") or whole.get("runAsUser") == 0:
            yield f"{pods.name}: sysctls, or runs as root"
        for volume in spec.get("volumes", []):
            if not set(volume) - {"name"} <= VOLUMES:
                yield f"{pods.name}: volume {volume['name']} is of a kind that is not allowed"
        for container in pods.containers:
            own = container.get("securityContext", {})
            where = f"{pods.name}, {container['name']}"
            both = {**whole, **own}
            if both.get("runAsNonRoot") is not True or own.get("runAsUser") == 0:
                yield f"{where}: may run as root"
            if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
                yield f"{where}: no seccomp profile"
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{where}: may get more privileges"
            if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
                yield f"{where}: keeps capabilities"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{where}: its root file system can be written"
            if "procMount" in own or any("hostPort" in port for port in container.get("ports", [])):
                yield f"{where}: procMount or hostPort"


def no_kubernetes_api(things):
    """No pod needs Kubernetes, so none gets a token for it."""
    for pods in all_pods(things):
        if pods.spec.get("automountServiceAccountToken") is not False:
            yield f"{pods.name} gets a token for the API of Kubernetes"
        if pods.spec.get("serviceAccountName"):
            yield f"{pods.name} names a service account"
    for thing in of_kind(things, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ServiceAccount"):
        yield f"{named(thing)} is there"


def resources(things):
    """Every container says what it needs, and no more memory than it may have."""
    for pods in all_pods(things):
        for container in pods.containers:
            given = container.get("resources", {})
            for part, key in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
                if key not in given.get(part, {}):
                    yield f"{pods.name}, {container['name']}: no {part} of {key}"


def images(things):
    """A tag that names a release, or a digest."""
    for pods in all_pods(things):
        for container in pods.containers:
            image = container["image"]
            name, _, tag = image.rpartition(":")
            if "@sha256:" not in image and (not name or "/" in tag or not re.match(r"v?\d+\.\d+\.\d+", tag)):
                yield f"{pods.name}, {container['name']}: image {image} names no release"


def probes(things):
    """Started, alive and ready are three questions, and what isn't ready is not killed for that."""
    for pods in all_pods(things):
        if not pods.stays:
            continue
        for container in pods.spec["containers"]:
            where = f"{pods.name}, {container['name']}"
            found = {kind: container.get(f"{kind}Probe") for kind in ("startup", "liveness", "readiness")}
            missing = [kind for kind, probe in found.items() if not probe]
            if missing:
                yield f"{where}: no probe for {' and '.join(missing)}"
                continue
            asked = {kind: (p["httpGet"]["path"], p["httpGet"]["port"]) for kind, p in found.items()}
            if asked["liveness"] == asked["readiness"]:
                yield f"{where}: alive and ready ask the same"
            if patience(found["liveness"]) <= patience(found["readiness"]):
                yield f"{where}: is killed before it is out of rotation"
            own = {port["name"] for port in container.get("ports", [])}
            for kind, (_, port) in asked.items():
                if port not in own:
                    yield f"{where}: the {kind} probe asks port {port}, which it has not"


def sidecars(things):
    """What stands beside another container starts before it and ends after it; and whoever asks it knows its port."""
    asked = {
        word.split("=")[1]
        for pods in all_pods(things) for c in pods.containers for word in c.get("args", [])
        if word.startswith("--connections-port=")
    }  # fmt: skip
    listens = set()
    for pods in all_pods(things):
        for container in pods.spec.get("initContainers", []):
            if container.get("ports") and container.get("restartPolicy") != "Always":
                yield f"{pods.name}, {container['name']}: listens, and ends before the others begin"
            if "connections" in container.get("args", [])[:1]:
                listens |= {str(port["containerPort"]) for port in container["ports"]}
        for container in pods.spec["containers"]:
            if "restartPolicy" in container:
                yield f"{pods.name}, {container['name']}: only init containers have a restartPolicy"
    if asked != listens:
        yield f"Pointsman asks for connections at {asked}, and {listens} listens"


def patience(probe):
    """Seconds until a probe has failed for good, with Kubernetes' defaults."""
    return probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)


def drained(container):
    """Seconds that Traefik takes to end, by what a container writes for it."""
    words = container.get("args", [])
    return sum(int(n) for word in words for n in re.findall(r"^--(?:grace|accept)-seconds=(\d+)$", word))


def rollout(things):
    """No pod goes before its successor is ready, and what is open gets its time."""
    for thing in of_kind(things, "Deployment"):
        given = thing["spec"].get("strategy", {}).get("rollingUpdate", {})
        if given.get("maxUnavailable") != 0 or not given.get("maxSurge"):
            yield f"{named(thing)}: a roll takes pods away first"
    for thing in of_kind(things, "StatefulSet"):
        if thing["spec"].get("updateStrategy", {}).get("type", "RollingUpdate") != "RollingUpdate":
            yield f"{named(thing)}: isn't rolled"
        if thing["spec"].get("podManagementPolicy") != "Parallel":
            yield f"{named(thing)}: a member would wait for one that waits for it"
    for pods in all_pods(things):
        drains = max(drained(container) for container in pods.containers)
        if pods.component == "proxy" and not drains:
            yield f"{pods.name}: nothing says how long it drains"
        if drains >= pods.spec.get("terminationGracePeriodSeconds", 30):
            yield f"{pods.name}: drains for {drains} s and is killed before that"


def least_replicas(things, pods):
    """The fewest replicas that a workload has."""
    for scaler in of_kind(things, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        if (target["kind"], target["name"]) == (pods.owner["kind"], pods.owner["metadata"]["name"]):
            return scaler["spec"]["minReplicas"]
    return pods.replicas


def disruption_budgets(things):
    """Whoever has several pods has a budget, which neither blocks a drain nor takes a majority away."""
    budgets = of_kind(things, "PodDisruptionBudget")
    for pods in all_pods(things):
        own = [budget for budget in budgets if matches(budget["spec"]["selector"], pods.labels)]
        count = least_replicas(things, pods)
        if pods.stays and (count or 0) > 1 and len(own) != 1:
            yield f"{pods.name} has {count} pods and {len(own)} budgets"
        for budget in own:
            if "minAvailable" in budget["spec"]:
                yield f"{named(budget)}: minAvailable blocks a drain when replicas change"
                continue
            away = budget["spec"]["maxUnavailable"]
            if isinstance(away, str):
                away = math.ceil(count * int(away.rstrip("%")) / 100)
            if away < 1:
                yield f"{named(budget)} blocks every drain"
            if pods.owner["kind"] == "Deployment" and budget["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
                yield f"{named(budget)}: pods that aren't ready block a drain"
            left = count - away
            if pods.owner["kind"] == "StatefulSet" and left < count // 2 + 1:
                yield f"{named(budget)} leaves {left} of {count} members, which is no majority"
            if left < 1:
                yield f"{named(budget)} leaves no pod"


def autoscaling(things):
    """An autoscaler's number of replicas isn't set back by each upgrade."""
    scaled = {scaler["spec"]["scaleTargetRef"]["name"]: scaler for scaler in of_kind(things, "HorizontalPodAutoscaler")}
    for thing in of_kind(things, "Deployment", "StatefulSet"):
        scaler = scaled.pop(thing["metadata"]["name"], None)
        if (scaler is None) == (thing["spec"].get("replicas") is None):
            yield f"{named(thing)}: either an autoscaler or a value gives the replicas"
        if scaler and scaler["spec"]["minReplicas"] > scaler["spec"]["maxReplicas"]:
            yield f"{named(scaler)}: the least is more than the most"
        if scaler and not all(
            "cpu" in c.get("resources", {}).get("requests", {}) for c in thing["spec"]["template"]["spec"]["containers"]
        ):
            yield f"{named(scaler)}: no request of CPU to count in"
    for name in scaled:
        yield f"an autoscaler scales {name}, which isn't there"


def spread(things):
    """Pods of one kind are spread over hosts and zones, or where the values say."""
    for pods in all_pods(things):
        if not pods.stays:
            continue
        rules = pods.spec.get("topologySpreadConstraints", [])
        if {"kubernetes.io/hostname", "topology.kubernetes.io/zone"} - {rule["topologyKey"] for rule in rules}:
            yield f"{pods.name} isn't spread over hosts and zones"
        for rule in rules:
            if not matches(rule["labelSelector"], pods.labels):
                yield f"{pods.name} is spread by the pods of others"
            if rule["whenUnsatisfiable"] != "ScheduleAnyway":
                yield f"{pods.name} waits for a node rather than run beside another"


def selectors(things):
    """Who selects pods means those of one workload, by labels that never change."""
    for thing in things:
        selector = pod_selector(thing)
        if selector is None:
            continue
        labels = selector.get("matchLabels", {})
        if set(labels) != {f"app.kubernetes.io/{key}" for key in ("name", "instance", "component")}:
            yield f"{named(thing)} selects by {sorted(labels)}"
        if any(key in Z2JH_LABELS or key.startswith("hub.jupyter.org/") for key in labels):
            yield f"{named(thing)} selects by z2jh's labels"
        found = meant(things, thing)
        if not found and labels.get("app.kubernetes.io/component") == "test":
            continue  # its pod is there during `helm test` only, and `network_cover` looks that it is meant
        if len(found) != 1:
            yield f"{named(thing)} selects the pods of {[pods.name for pods in found]}"
        elif thing["kind"] in ("Deployment", "StatefulSet") and found[0].owner is not thing:
            yield f"{named(thing)} selects pods of {found[0].name}"


def network_cover(things):
    """Every pod is covered both ways."""
    policies = of_kind(things, "NetworkPolicy")
    for pods in all_pods(things):
        own = [p["spec"] for p in policies if matches(p["spec"]["podSelector"], pods.labels)]
        for way in ("Ingress", "Egress"):
            if not any(way in spec["policyTypes"] for spec in own):
                yield f"{pods.name}: no policy for {way}"


def metadata(things):
    """Every object of ours says whose it is, and has a name that Kubernetes takes."""
    seen = set()
    for thing in things:
        meta = thing["metadata"]
        if (thing["kind"], meta["name"]) in seen:
            yield f"{named(thing)} is there twice"
        seen.add((thing["kind"], meta["name"]))
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", meta["name"]):
            yield f"{named(thing)} has a name that is too long or not allowed"
        if not meta.get("namespace"):
            yield f"{named(thing)} has no namespace"
        for key in ("name", "instance", "component", "version", "part-of", "managed-by"):
            if f"app.kubernetes.io/{key}" not in meta.get("labels", {}):
                yield f"{named(thing)} has no label {key}"
        for key, value in meta.get("labels", {}).items():
            if not isinstance(value, str) or not re.fullmatch(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?", value):
                yield f"{named(thing)}: label {key} has the value {value!r}"


CHECKS = [
    pod_security, no_kubernetes_api, resources, images, probes, sidecars, rollout, disruption_budgets, autoscaling, spread,
    selectors, network_cover, metadata,
]  # fmt: skip
