"""Beside the real chart of Zero to JupyterHub: rendered with ours, and its own hub configuration run. `make test-z2jh`."""

import http.client
import os
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest
import z2jh
from devkit.ports import free_port
from engine import ROOT, refusal, render
from workloads import all_pods, matches, may_call, meant, of_kind

pytestmark = pytest.mark.z2jh
TOKEN = "a-token-for-tests"
NOBODY = {"podSelector": {"matchLabels": {"nobody": "is"}}}
OURS = "http://pointsman-api:8001"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("z2jh")


@pytest.fixture(scope="module")
def switched(folder):
    """The chart with `proxy.chp.enabled`, by itself or by a copy that we give it to."""
    return z2jh.with_switch(folder)


def beside(name, place):
    return z2jh.rendered(z2jh.values(name), place=place, sets={"proxy.secretToken": TOKEN}).objects


def one(things, kind, name):
    (found,) = [t for t in things if (t["kind"], t["metadata"]["name"]) == (kind, name)]
    return found


def components(things, service, port):
    return {
        pods.component
        for pods in all_pods(things)
        if matches({"matchLabels": service["spec"]["selector"]}, pods.labels) and port in pods.ports
    }


# What z2jh.py says of it is so.


def test_the_facts_are_so(switched):
    things = z2jh.rendered().objects
    for name, ports in z2jh.SERVICES.items():
        spec = one(things, "Service", name)["spec"]
        assert spec["selector"] == z2jh.PROXY
        assert [(port["port"], port["targetPort"]) for port in spec["ports"]] == ports
    assert one(things, "Secret", z2jh.TOKEN["name"])["data"][z2jh.TOKEN["key"]]
    (hub,) = meant(things, one(things, "NetworkPolicy", "hub"))
    assert hub.labels["component"] == "hub" and hub.labels[z2jh.CALLS_API] == "true"
    real = {name: one(things, "NetworkPolicy", name)["spec"] for name in ("hub", "singleuser")}
    for policy in z2jh.policies():
        spec, name = policy["spec"], policy["metadata"]["name"]
        assert real[name]["podSelector"] == spec["podSelector"]
        for rule in spec["ingress"]:
            assert rule in real[name]["ingress"]
        for rule in spec["egress"]:
            if "ports" in rule:
                assert rule in real[name]["egress"]
    assert any("10.0.0.0/8" in str(rule) for rule in real["hub"]["egress"])
    off = z2jh.rendered(z2jh.values("adopt.yaml"), place=switched).objects
    assert {t["metadata"]["name"] for t in off if t["kind"] == "Service"} >= set(z2jh.SERVICES)
    assert not [t for t in off if t["kind"] in ("Deployment", "NetworkPolicy") and t["metadata"]["name"] == "proxy"]


FLAGS = {
    "plain": ({}, [*z2jh.FLAGS, *z2jh.FLAGS_PLAIN]),
    "tls": (
        {"proxy.https": {"enabled": True, "type": "secret", "secret": {"name": "tls"}}},
        [*z2jh.FLAGS, *z2jh.FLAGS_TLS],
    ),
    "more": (
        {"debug.enabled": True, "hub.config.JupyterHub.subdomain_host": "https://hub.example.org"},
        [*z2jh.FLAGS, *z2jh.FLAGS_PLAIN, *z2jh.FLAGS_MORE],
    ),
}


def chp_arguments(*sources, sets):
    proxy = one(z2jh.rendered(*sources, sets=sets).objects, "Deployment", "proxy")
    container = proxy["spec"]["template"]["spec"]["containers"][0]
    return container, [argument.replace("$(HUB_SERVICE_PORT)", "8081") for argument in container["args"]]


@pytest.mark.parametrize("case", FLAGS)
def test_the_flags_are_so(case):
    sets, wanted = FLAGS[case]
    assert chp_arguments(sets=sets)[1] == wanted


# Recipe A


@pytest.mark.parametrize(("name", "hub"), [("beside.yaml", 5), ("beside.yaml", 6), ("beside-older.yaml", 6), ("beside-moving.yaml", 6)])
def test_beside_the_hub_talks_to_us_with_its_token(name, hub, folder, switched):
    place = switched if name == "beside.yaml" else z2jh.chart()
    found = z2jh.hub_settings(beside(name, place), folder, hub)
    assert found["api_url"] == OURS and found["should_start"] is False and found["token"] == TOKEN
    # As often it puts back what is missing.
    assert found["last_activity_interval"] == 60


def test_without_the_recipe_the_hub_talks_to_its_own(folder):
    found = z2jh.hub_settings(z2jh.rendered(sets={"proxy.secretToken": TOKEN}).objects, folder)
    assert found["api_url"] == "http://proxy-api:8001"


def test_a_parked_chp_does_nothing_and_is_not_probed():
    proxy = one(beside("beside-older.yaml", z2jh.chart()), "Deployment", "proxy")
    (container,) = proxy["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["/pause"] and not {"livenessProbe", "readinessProbe"} & set(container)


def test_a_chp_on_the_way_leads_to_our_traefik():
    proxy = one(beside("beside-moving.yaml", z2jh.chart()), "Deployment", "proxy")
    assert "--default-target=http://pointsman-public" in proxy["spec"]["template"]["spec"]["containers"][0]["args"]
    assert proxy["spec"]["strategy"]["type"] == "RollingUpdate"


@pytest.mark.parametrize("name", ["beside.yaml", "beside-older.yaml"])
def test_beside_its_services_pass_our_pods_by(name, switched):
    place = switched if name == "beside.yaml" else z2jh.chart()
    things = beside(name, place) + render().objects
    for service in z2jh.SERVICES:
        for port in ("api", "http"):
            assert components(things, one(things, "Service", service), port) <= {None, "proxy"} - {"api"}
            assert not [
                pods
                for pods in meant(things, one(things, "Service", service))
                if pods.labels.get("app.kubernetes.io/name") == "pointsman"
            ]


# Recipe B


def test_adopted_services_lead_to_our_pods_by_named_ports(switched):
    ours = render(z2jh.values("adopt-pointsman.yaml")).objects
    things = beside("adopt.yaml", switched) + ours
    assert components(things, one(things, "Service", "proxy-api"), "api") == {"api"}
    assert components(things, one(things, "Service", "proxy-public"), "http") == {"proxy"}
    for name in z2jh.SERVICES:
        for pods in meant(things, one(things, "Service", name)):
            assert pods.labels["app.kubernetes.io/name"] == "pointsman", pods.name


@pytest.mark.parametrize("hub", [5, 6])
def test_adopted_the_hub_needs_no_configuration(hub, folder, switched):
    found = z2jh.hub_settings(beside("adopt.yaml", switched), folder, hub)
    assert found["api_url"] == "http://proxy-api:8001" and found["token"] == TOKEN and not found["should_start"]


@pytest.mark.parametrize("recipe", ["beside", "adopt"])
def test_policies_of_both_charts_let_through_what_is_needed(recipe, switched):
    ours = render(*([z2jh.values("adopt-pointsman.yaml")] if recipe == "adopt" else [])).objects
    things = beside(f"{recipe}.yaml", switched) + ours
    (hub,) = meant(things, one(things, "NetworkPolicy", "hub"))
    api, proxy = [next(p.labels for p in all_pods(ours) if p.component == name) for name in ("api", "proxy")]
    # Rules about addresses and other namespaces are not about these pods.
    for policy in of_kind(things, "NetworkPolicy"):
        for key, peers in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(key) or []:
                if rule.get(peers):
                    rule[peers] = [peer for peer in rule[peers] if "podSelector" in peer] or [NOBODY]
    flows = [
        (api, hub.labels, "http", 8081),
        (proxy, hub.labels, "http", 8081),
        (proxy, z2jh.USER, "notebook-port", 8888),
    ]
    if recipe == "adopt":
        flows += [(hub.labels, api, "api", 8001), (z2jh.USER, proxy, "http", 8000)]
    for source, target, port, number in flows:
        assert may_call(things, source, target, port, number), (source, target, port)
    assert not may_call(things, z2jh.USER, api, "api", 8001)


# Recipe C


def status(port, path, headers=None):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path, headers=headers or {})
        return connection.getresponse().status


@pytest.mark.parametrize("case", ["plain", "more"])
def test_in_its_pod_our_program_takes_every_flag_and_is_probed_well(case, tmp_path):
    """The command of the pod, with other ports and folder: of a flag that is there twice the last one counts."""
    container, arguments = chp_arguments(z2jh.values("in-chp-pod.yaml"), sets=FLAGS[case][0])
    assert container["command"] == ["/usr/local/bin/pointsman"] and "--data-dir=/tmp/pointsman" in arguments
    probe = container["readinessProbe"]["httpGet"]
    assert (probe["path"], probe["port"]) == ("/_chp_healthz", "http")
    named = os.environ.get("POINTSMAN_TEST_BINARY")
    binary = Path(named) if named else ROOT / "target" / "debug" / "pointsman"
    assert binary.exists(), f"{binary} is missing; `make test-z2jh` builds it"
    public, api = free_port(), free_port()
    ours = ["--ip=127.0.0.1", "--api-ip=127.0.0.1", f"--port={public}", f"--api-port={api}", f"--data-dir={tmp_path}/data"]
    ours += [f"--traefik-binary={ROOT}/.pointsman/bin/traefik"]
    with open(tmp_path / "log", "wb") as log:
        child = subprocess.Popen(
            [str(binary), *arguments, *ours],
            env={"CONFIGPROXY_AUTH_TOKEN": TOKEN, "PATH": "/usr/bin:/bin"},
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
    try:
        deadline, seen = time.monotonic() + 30, None
        while seen != (200, 200):
            said = (tmp_path / "log").read_text()
            assert child.poll() is None, f"it ended by itself:\n{said}"
            assert time.monotonic() < deadline, f"{seen}\n{said}"
            time.sleep(0.1)
            try:
                seen = (status(public, probe["path"]), status(api, "/api/routes", {"Authorization": f"token {TOKEN}"}))
            except OSError as error:
                seen = error
    finally:
        child.terminate()
        child.wait(20)


# Recipe D


def test_the_umbrella_is_one_release(folder, tmp_path, switched):
    chart = z2jh.umbrella(tmp_path, switched)
    things = render(chart=chart, release="any", sets={"jupyterhub.proxy.secretToken": TOKEN, "global.more": 1}).objects
    assert z2jh.hub_settings(things, folder)["api_url"] == OURS
    api = one(things, "Service", "pointsman-api")
    assert components(things, api, "api") == {"api"}
    names = [(thing["kind"], thing["metadata"]["name"]) for thing in things]
    assert len(names) == len(set(names)), "two objects of one name"


def test_what_its_schema_does_not_know_is_refused():
    """So the examples are held against its schema by every test here."""
    assert "enabld" in refusal({"proxy": {"chp": {"enabld": False}}}, chart=z2jh.chart())
