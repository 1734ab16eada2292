"""Who may call whom, by the NetworkPolicies as Kubernetes reads them."""

import copy

import pytest
from cases import rendered
from engine import load_all, render
from workloads import all_pods, may_call

HUB = {"component": "hub", "hub.jupyter.org/network-access-proxy-api": "true"}
USER = {"component": "singleuser-server"}
STRANGER = {"app": "somebody"}
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}

# Source, target, port by name and number.
NEEDED = [
    ("hub", "api", "api", 8001),
    ("test", "api", "api", 8001),
    ("proxy", "api", "pages", 8002),
    ("api", "proxy", "private", 8099),
    ("api", "proxy", "connections", 8098),
    ("test", "proxy", "http", 8000),
    ("proxy", "test", "answer", 8004),
    ("stranger", "proxy", "http", 8000),
    ("hub", "proxy", "http", 8000),
    ("user", "proxy", "http", 8000),
    ("api", "etcd", "client", 2379),
    ("proxy", "etcd", "client", 2379),
    ("etcd", "etcd", "client", 2379),
    ("etcd", "etcd", "peer", 2380),
    ("proxy", "user", None, 8888),
    ("proxy", "hub", None, 8081),
    ("api", "hub", None, 8081),
    ("stranger", "api", "metrics", 8003),
    ("stranger", "etcd", "metrics", 2381),
]
FORBIDDEN = [
    ("stranger", "api", "api", 8001),
    ("user", "api", "api", 8001),
    ("proxy", "api", "api", 8001),
    ("hub", "api", "pages", 8002),
    ("stranger", "proxy", "private", 8099),
    ("stranger", "proxy", "connections", 8098),
    ("test", "proxy", "connections", 8098),
    ("user", "proxy", "private", 8099),
    ("hub", "proxy", "private", 8099),
    ("hub", "etcd", "client", 2379),
    ("user", "etcd", "client", 2379),
    ("test", "etcd", "client", 2379),
    ("api", "etcd", "peer", 2380),
    ("proxy", "etcd", "peer", 2380),
    ("etcd", "api", "api", 8001),
    ("etcd", "user", None, 8888),
    ("test", "user", None, 8888),
    ("test", "proxy", "private", 8099),
    ("stranger", "test", "answer", 8004),
]


def labels_of(things):
    found = {pods.component: pods.labels for pods in all_pods(things)}
    return {**found, "hub": HUB, "user": USER, "stranger": STRANGER, "prometheus": PROMETHEUS}


def allowed(things, flow):
    source, target, port, number = flow
    labels = labels_of(things)
    return may_call(things, labels[source], labels[target], port, number)


@pytest.mark.parametrize("flow", NEEDED, ids=lambda flow: f"{flow[0]}-{flow[1]}-{flow[3]}")
def test_who_needs_somebody_may_call_him(flow):
    assert allowed(rendered("default").everything, flow)


@pytest.mark.parametrize("flow", FORBIDDEN, ids=lambda flow: f"{flow[0]}-{flow[1]}-{flow[3]}")
def test_nobody_else_may(flow):
    assert not allowed(rendered("default").everything, flow)


def test_without_policies_everybody_may():
    things = [thing for thing in rendered("default").everything if thing["kind"] != "NetworkPolicy"]
    assert all(allowed(things, flow) for flow in FORBIDDEN)


def test_traefiks_private_port_is_open_to_prometheus_only_when_it_is_asked_for():
    closed = render(sets={"networkPolicy.metricsFrom": [{"podSelector": {"matchLabels": PROMETHEUS}}]}).everything
    flow = ("prometheus", "proxy", "private", 8099)
    assert allowed(closed, ("prometheus", "api", "metrics", 8003))
    assert not allowed(closed, ("stranger", "api", "metrics", 8003))
    assert not allowed(closed, flow)
    opened = render(
        sets={
            "networkPolicy.metricsFrom": [{"podSelector": {"matchLabels": PROMETHEUS}}],
            "metrics.podMonitor.enabled": True,
        }
    ).everything
    assert allowed(opened, flow)
    assert not allowed(opened, ("stranger", "proxy", "private", 8099))
    assert not allowed(opened, ("prometheus", "proxy", "connections", 8098))


def test_users_may_be_limited_to_some_who_come_in():
    things = render(sets={"networkPolicy.publicFrom": [{"podSelector": {"matchLabels": {"app": "ingress"}}}]}).everything
    assert not allowed(things, ("stranger", "proxy", "http", 8000))
    assert allowed(things, ("test", "proxy", "http", 8000))


def test_servers_may_be_elsewhere():
    things = render(sets={"networkPolicy.serversTo": [{"podSelector": {"matchLabels": USER}}]}).everything
    assert allowed(things, ("proxy", "user", None, 8888))
    assert allowed(things, ("proxy", "test", "answer", 8004))
    assert not allowed(things, ("proxy", "stranger", None, 8888))
    assert not allowed(things, ("api", "stranger", None, 8888))


def test_an_etcd_of_ones_own_is_reached_at_its_ports():
    things = render(
        sets={
            "etcd.enabled": False,
            "etcd.external.endpoints": ["http://a:2379", "http://b:2379", "http://c:12379"],
        }
    ).everything
    for source in ("api", "proxy"):
        assert allowed(things, (source, "stranger", None, 2379))
        assert allowed(things, (source, "stranger", None, 12379))
    assert not allowed(things, ("test", "stranger", None, 2379))
    # Each port once, however many members use it.
    (policy,) = [t for t in things if (t["kind"], t["metadata"]["name"]) == ("NetworkPolicy", "pointsman")]
    assert policy["spec"]["egress"][1]["ports"] == [{"port": 2379}, {"port": 12379}]


def test_names_are_looked_up_by_every_pod():
    things = rendered("default").everything
    dns = load_all("{kind: Pod, metadata: {name: dns, labels: {k8s-app: kube-dns}}, spec: {containers: []}}")
    for pods in all_pods(things):
        assert may_call(copy.deepcopy(things) + dns, pods.labels, {"k8s-app": "kube-dns"}, None, 53), pods.name


def test_traefiks_of_ones_own_are_reached_and_nobody_else():
    things = render(
        sets={
            "traefik.enabled": False,
            "traefik.api": ["http://10.0.0.1:8099", "http://10.0.0.2:8099", "http://10.0.0.3:9000"],
            "networkPolicy.traefikPeers": [{"podSelector": {"matchLabels": STRANGER}}],
        }
    ).everything
    assert "proxy" not in labels_of(things)
    for flow in (("stranger", "api", "pages", 8002), ("stranger", "etcd", "client", 2379), ("api", "stranger", None, 8099)):
        assert allowed(things, flow), flow
        assert not allowed(rendered("default").everything, flow) or flow[1] == "stranger", flow
    for flow in (("user", "api", "pages", 8002), ("user", "etcd", "client", 2379), ("stranger", "api", "api", 8001)):
        assert not allowed(things, flow), flow
    (policy,) = [t for t in things if (t["kind"], t["metadata"]["name"]) == ("NetworkPolicy", "pointsman")]
    assert [{"port": 8099}, {"port": 9000}] in [rule.get("ports") for rule in policy["spec"]["egress"]]
