"""Each policy is broken on purpose, and must say so."""

import copy

import policies
import pytest
import references
from cases import rendered


def deployment(things, name="pointsman"):
    (found,) = [t for t in things if (t["kind"], t["metadata"]["name"]) == ("Deployment", name)]
    return found


def one(things, kind, name):
    (found,) = [t for t in things if (t["kind"], t["metadata"]["name"]) == (kind, name)]
    return found


def pod(things, name="pointsman"):
    return deployment(things, name)["spec"]["template"]["spec"]


def container(things):
    return pod(things)["containers"][0]


def drop(node, *keys):
    for key in keys[:-1]:
        node = node[key]
    del node[keys[-1]]


def put(node, *path):
    *keys, last, value = path
    for key in keys:
        node = node[key]
    node[last] = value


BROKEN = {
    "no seccomp": (policies.pod_security, lambda t: drop(pod(t), "securityContext", "seccompProfile")),
    "root": (policies.pod_security, lambda t: put(pod(t), "securityContext", "runAsNonRoot", False)),
    "host network": (policies.pod_security, lambda t: put(pod(t), "hostNetwork", True)),
    "host path": (policies.pod_security, lambda t: put(pod(t), "volumes", 0, {"name": "a", "hostPath": {"path": "/"}})),
    "capabilities": (policies.pod_security, lambda t: drop(container(t), "securityContext", "capabilities")),
    "escalation": (policies.pod_security, lambda t: drop(container(t), "securityContext", "allowPrivilegeEscalation")),
    "writable": (policies.pod_security, lambda t: put(container(t), "securityContext", "readOnlyRootFilesystem", False)),
    "host port": (policies.pod_security, lambda t: put(container(t), "ports", 0, "hostPort", 80)),
    "init container": (
        policies.pod_security,
        lambda t: drop(pod(t, "pointsman-traefik"), "initContainers", 0, "securityContext"),
    ),
    "token": (policies.no_kubernetes_api, lambda t: drop(pod(t), "automountServiceAccountToken")),
    "no limits": (policies.resources, lambda t: drop(container(t), "resources", "limits")),
    "no requests": (policies.resources, lambda t: drop(container(t), "resources", "requests", "cpu")),
    "latest": (policies.images, lambda t: put(container(t), "image", "traefik:latest")),
    "no tag": (policies.images, lambda t: put(container(t), "image", "quay.io:5000/traefik")),
    "no probe": (policies.probes, lambda t: drop(container(t), "startupProbe")),
    "alive is ready": (
        policies.probes,
        lambda t: put(container(t), "readinessProbe", "httpGet", dict(container(t)["livenessProbe"]["httpGet"])),
    ),
    "killed too early": (policies.probes, lambda t: put(container(t), "livenessProbe", "periodSeconds", 1)),
    "probe at no port": (policies.probes, lambda t: put(container(t), "livenessProbe", "httpGet", "port", "web")),
    "rolled away": (policies.rollout, lambda t: put(deployment(t), "spec", "strategy", "rollingUpdate", "maxUnavailable", 1)),
    "one by one": (
        policies.rollout,
        lambda t: drop(one(t, "StatefulSet", "pointsman-etcd"), "spec", "podManagementPolicy"),
    ),
    "sidecar ends": (
        policies.sidecars,
        lambda t: [c.pop("restartPolicy", 0) for c in pod(t, "pointsman-traefik")["initContainers"]],
    ),
    "nobody asks": (
        policies.sidecars,
        lambda t: container(t)["args"].remove("--connections-port=8098"),
    ),
    "short grace": (policies.rollout, lambda t: put(pod(t, "pointsman-traefik"), "terminationGracePeriodSeconds", 30)),
    "no drain": (policies.rollout, lambda t: put(pod(t, "pointsman-traefik"), "initContainers", 0, "args", [])),
    "no budget": (policies.disruption_budgets, lambda t: t.remove(one(t, "PodDisruptionBudget", "pointsman"))),
    "no quorum": (
        policies.disruption_budgets,
        lambda t: put(one(t, "PodDisruptionBudget", "pointsman-etcd"), "spec", "maxUnavailable", 2),
    ),
    "blocked": (
        policies.disruption_budgets,
        lambda t: put(one(t, "PodDisruptionBudget", "pointsman"), "spec", "maxUnavailable", "0%"),
    ),
    "the sick block": (
        policies.disruption_budgets,
        lambda t: drop(one(t, "PodDisruptionBudget", "pointsman"), "spec", "unhealthyPodEvictionPolicy"),
    ),
    "minAvailable": (
        policies.disruption_budgets,
        lambda t: put(one(t, "PodDisruptionBudget", "pointsman"), "spec", "minAvailable", 2),
    ),
    "nobody left": (
        policies.disruption_budgets,
        lambda t: put(one(t, "PodDisruptionBudget", "pointsman"), "spec", "maxUnavailable", "100%"),
    ),
    "no replicas": (policies.autoscaling, lambda t: drop(deployment(t), "spec", "replicas")),
    "no spread": (policies.spread, lambda t: drop(pod(t), "topologySpreadConstraints", 1)),
    "spread by others": (
        policies.spread,
        lambda t: put(pod(t), "topologySpreadConstraints", 0, "labelSelector", {"matchLabels": {"a": "b"}}),
    ),
    "Service leads nowhere": (
        policies.selectors,
        lambda t: put(one(t, "Service", "pointsman-api"), "spec", "selector", "app.kubernetes.io/component", "web"),
    ),
    "Service leads to all": (
        policies.selectors,
        lambda t: drop(one(t, "Service", "pointsman-api"), "spec", "selector", "app.kubernetes.io/component"),
    ),
    "z2jh's labels": (
        policies.selectors,
        lambda t: put(one(t, "Service", "pointsman-api"), "spec", "selector", {"component": "proxy"}),
    ),
    "no policy": (policies.network_cover, lambda t: t.remove(one(t, "NetworkPolicy", "pointsman"))),
    "one way": (
        policies.network_cover,
        lambda t: put(one(t, "NetworkPolicy", "pointsman-etcd"), "spec", "policyTypes", ["Ingress"]),
    ),
    "no label": (policies.metadata, lambda t: drop(deployment(t), "metadata", "labels", "app.kubernetes.io/version")),
    "no namespace": (policies.metadata, lambda t: drop(deployment(t), "metadata", "namespace")),
    "long name": (policies.metadata, lambda t: put(deployment(t), "metadata", "name", "a" * 64)),
    "target port": (
        references.inside,
        lambda t: put(one(t, "Service", "pointsman-api"), "spec", "ports", 0, "targetPort", "web"),
    ),
    "mount": (references.inside, lambda t: put(container(t), "volumeMounts", 0, "name", "elsewhere")),
    "variable": (references.inside, lambda t: container(t)["args"].append("--user=$(NOBODY)")),
    "variable twice": (references.inside, lambda t: container(t)["env"].append({"name": "POINTSMAN_API_PORT", "value": "1"})),
    "service name": (
        references.inside,
        lambda t: put(one(t, "StatefulSet", "pointsman-etcd"), "spec", "serviceName", "pointsman-api"),
    ),
    "policy of no port": (
        references.inside,
        lambda t: put(one(t, "NetworkPolicy", "pointsman"), "spec", "ingress", 0, "ports", 0, "port", "apis"),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_seen(name):
    check, breaks = BROKEN[name]
    things = copy.deepcopy(rendered("default").everything)
    assert list(check(things)) == []
    breaks(things)
    assert list(check(things)) != []


def test_every_policy_is_broken_once():
    tried = {check for check, _ in BROKEN.values()}
    assert set(policies.CHECKS) <= tried


def test_what_scales_wrongly_is_seen():
    things = copy.deepcopy(rendered("hpa").everything)
    scaler = one(things, "HorizontalPodAutoscaler", "pointsman")
    deployment(things)["spec"]["replicas"] = 2
    scaler["spec"]["minReplicas"] = 9
    drop(container(things), "resources", "requests", "cpu")
    one(things, "HorizontalPodAutoscaler", "pointsman-traefik")["spec"]["scaleTargetRef"]["name"] = "nobody"
    found = " ".join(policies.autoscaling(things))
    for words in ("an autoscaler or a value", "least is more", "no request of CPU", "scales nobody"):
        assert words in found


def test_monitors_and_entries_that_lead_nowhere_are_seen():
    things = copy.deepcopy(rendered("hpa").everything)
    one(things, "ServiceMonitor", "pointsman")["spec"]["endpoints"][0]["port"] = "web"
    one(things, "PodMonitor", "pointsman-etcd")["spec"]["podMetricsEndpoints"][0]["port"] = "web"
    assert len(list(references.inside(things))) == 2
    things = copy.deepcopy(rendered("entry").everything)
    one(things, "HTTPRoute", "pointsman")["spec"]["rules"][0]["backendRefs"][0]["port"] = 81
    path = one(things, "Ingress", "pointsman")["spec"]["rules"][0]["http"]["paths"][0]
    path["backend"]["service"]["name"] = "nobody"
    assert len(list(references.inside(things))) == 2


def test_a_key_that_no_secret_has_is_seen():
    things = copy.deepcopy(rendered("minimal").everything)
    assert list(references.inside(things)) == []
    one(things, "Secret", "pointsman-token")["stringData"] = {"other": "x"}
    assert any("has no key token" in line for line in references.inside(things))
