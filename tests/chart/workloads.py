"""What the checks ask of rendered objects: their pods, whom a selector means, what a policy lets through."""

from dataclasses import dataclass

# Labels of z2jh that our pods carry, so that its Services and policies mean them. They are no part of ours.
Z2JH_LABELS = {"component", "app", "release"}


@dataclass
class Pods:
    """The pods of one workload, or the one pod of a test."""

    owner: dict
    labels: dict
    spec: dict

    @property
    def name(self):
        return f"{self.owner['kind']} {self.owner['metadata']['name']}"

    @property
    def component(self):
        return self.labels.get("app.kubernetes.io/component")

    @property
    def replicas(self):
        return self.owner["spec"].get("replicas") if self.stays else 1

    @property
    def stays(self):
        return self.owner["kind"] in ("Deployment", "StatefulSet")

    @property
    def containers(self):
        return self.spec.get("initContainers", []) + self.spec["containers"]

    @property
    def ports(self):
        """Names of ports, with their numbers."""
        return {port["name"]: port["containerPort"] for c in self.containers for port in c.get("ports", [])}


def all_pods(things):
    found = []
    for thing in things:
        if thing["kind"] == "Pod":
            found.append(Pods(thing, thing["metadata"].get("labels", {}), thing["spec"]))
        elif thing["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            template = thing["spec"]["template"]
            found.append(Pods(thing, template["metadata"].get("labels", {}), template["spec"]))
    return found


def of_kind(things, *kinds):
    return [thing for thing in things if thing["kind"] in kinds]


def named(thing):
    return f"{thing['kind']} {thing['metadata']['name']}"


def matches(selector, labels):
    """Whether a label selector means something with these labels. An empty one means everything."""
    unknown = set(selector) - {"matchLabels"}
    assert not unknown, f"the checks can't read {unknown} of a selector"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def pod_selector(thing):
    """The selector by which an object means pods, or None."""
    spec = thing.get("spec", {})
    if thing["kind"] == "Service":
        return {"matchLabels": spec["selector"]}
    if thing["kind"] == "NetworkPolicy":
        return spec["podSelector"]
    if thing["kind"] in ("PodDisruptionBudget", "Deployment", "StatefulSet", "PodMonitor"):
        return spec["selector"]
    return None


def meant(things, thing):
    """The pods that an object's selector hits."""
    selector = pod_selector(thing)
    return [pods for pods in all_pods(things) if matches(selector, pods.labels)]


def lets_through(rules, peers_key, labels, port, number):
    """Whether one of a policy's rules lets a peer in the same namespace through at a port."""
    for rule in rules:
        peers, ports = rule.get(peers_key), rule.get("ports")
        peer_fits = not peers or any(matches(peer["podSelector"], labels) for peer in peers if "podSelector" in peer)
        if peer_fits and (not ports or any(given["port"] in (port, number) for given in ports)):
            return True
    return False


def may_call(things, source, target, port, number=None):
    """Whether the policies let pods with the labels `source` call those with `target` at a port.

    Who is meant by no policy may call everybody, and be called by everybody, as in Kubernetes.
    """
    policies = of_kind(things, "NetworkPolicy")

    def side(labels, other, kind, rules_key, peers_key):
        own = [p["spec"] for p in policies if matches(p["spec"]["podSelector"], labels)]
        own = [spec for spec in own if kind in spec["policyTypes"]]
        return not own or any(
            lets_through(spec.get(rules_key) or [], peers_key, other, port, number) for spec in own
        )

    return side(source, target, "Egress", "egress", "to") and side(target, source, "Ingress", "ingress", "from")


def secrets_and_maps(pods):
    """The Secrets and ConfigMaps that pods can't start without: pairs of kind and name."""
    found = {("Secret", given["name"]) for given in pods.spec.get("imagePullSecrets", [])}
    for container in pods.containers:
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            for key, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if key in source:
                    found.add((kind, source[key]["name"]))
        for source in container.get("envFrom", []):
            for key, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
                if key in source:
                    found.add((kind, source[key]["name"]))
    for volume in pods.spec.get("volumes", []):
        parts = volume.get("projected", {}).get("sources", []) + [volume]
        for part in parts:
            if "secret" in part:
                found.add(("Secret", part["secret"].get("secretName") or part["secret"]["name"]))
            if "configMap" in part:
                found.add(("ConfigMap", part["configMap"]["name"]))
    return found
