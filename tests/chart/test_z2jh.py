"""Beside Zero to JupyterHub, as far as it can be tried without its chart: by what z2jh.py knows of it."""

import re

import pytest
import yaml
from engine import ROOT, refusal, render
from workloads import all_pods, matches, may_call
from z2jh import (
    CALLS_API, EXAMPLES, HUB, MAY_CALL_HUB, MAY_CALL_USERS, PROXY, RELEASE, SERVICES, TOKEN, USER, lines_of_values,
    policies, values,
)  # fmt: skip

ADOPT = values("adopt-pointsman.yaml")
HUB_POD = {**HUB, CALLS_API: "true"}


def behind(things, labels, port):
    """The components whose pods a Service with this selector and target port leads to."""
    return {pods.component for pods in all_pods(things) if matches({"matchLabels": labels}, pods.labels) and port in pods.ports}


def pods_of(things, component):
    (found,) = [pods for pods in all_pods(things) if pods.component == component]
    return found


@pytest.mark.parametrize("name", ["beside.yaml", "beside-older.yaml", "adopt.yaml", "adopt-pointsman.yaml"])
def test_the_values_of_a_recipe_are_at_most_ten_lines(name):
    # For z2jh 4.4.0 and older CHP can only be parked, which takes two more.
    assert lines_of_values(name) <= (12 if "older" in name else 10)


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.name)
def test_the_page_quotes_each_example_as_it_is(path):
    page = "\n".join((ROOT / "docs" / name).read_text() for name in ("z2jh.md", "moving-z2jh.md"))
    quoted = [block.strip() for block in re.findall(r"```yaml\n(.*?)```", page, re.S)]
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    assert text.strip() in quoted, f"{path.name} is quoted otherwise, or not at all"


def test_a_hub_finds_our_api_where_the_recipe_says():
    things = render(release="pointsman").objects
    services = {t["metadata"]["name"]: t for t in things if t["kind"] == "Service"}
    for name in ("beside.yaml", "beside-older.yaml", "beside-moving.yaml"):
        url = values(name)["hub"]["config"]["ConfigurableHTTPProxy"]["api_url"]
        host, port = re.fullmatch(r"http://([^:]+):(\d+)", url).groups()
        (served,) = services[host]["spec"]["ports"]
        assert served["port"] == int(port)
        assert behind(things, services[host]["spec"]["selector"], served["targetPort"]) == {"api"}
    (entry, *_) = services["pointsman-public"]["spec"]["ports"]
    assert values("beside-moving.yaml")["proxy"]["chp"]["defaultTarget"] == "http://pointsman-public" and entry["port"] == 80


def test_the_token_is_the_hubs_own():
    for component in ("api", "proxy"):
        pods = pods_of(render().objects, component)
        variables = [v for c in pods.containers for v in c.get("env", []) if v["name"] == "CONFIGPROXY_AUTH_TOKEN"]
        assert variables and all(v["valueFrom"]["secretKeyRef"] == TOKEN for v in variables)


def test_adopted_services_lead_to_the_right_pods_by_their_named_ports():
    things = render(ADOPT).objects
    wanted = {"proxy-api": {"api"}, "proxy-public": {"proxy"}}
    for name, ports in SERVICES.items():
        for _, port in ports:
            assert behind(things, PROXY, port) == wanted[name], name
    tls = render(ADOPT, sets={"tls.mode": "secret", "tls.secretName": "hub-tls"}).objects
    assert behind(tls, PROXY, "https") == {"proxy"}
    assert pods_of(things, "proxy").ports["http"] == 8000 and pods_of(things, "api").ports["api"] == 8001
    # Without it, z2jh's Services pass our pods by, also where both have the same release.
    for release in (RELEASE, "pointsman"):
        for port in ("api", "http"):
            assert behind(render(release=release).objects, PROXY, port) == set()


def test_adopted_labels_are_no_part_of_what_can_not_be_changed():
    for thing in render(ADOPT).objects:
        selector = thing.get("spec", {}).get("selector") or thing.get("spec", {}).get("podSelector") or {}
        labels = selector.get("matchLabels", selector)
        assert not set(labels) & {"component", "app", "release"}, thing["metadata"]["name"]


@pytest.mark.parametrize("sources", [[], [ADOPT]], ids=["beside", "adopt"])
def test_policies_of_both_charts_let_through_what_is_needed(sources):
    things = render(*sources).objects + policies()
    api, proxy = pods_of(things, "api").labels, pods_of(things, "proxy").labels
    assert api[MAY_CALL_HUB] == proxy[MAY_CALL_HUB] == proxy[MAY_CALL_USERS] == "true"
    flows = [
        (api, HUB, "http", 8081),
        (proxy, HUB, "http", 8081),
        (proxy, USER, "notebook-port", 8888),
        (proxy, api, "pages", 8002),
        (api, proxy, "private", 8099),
    ]
    if sources:
        # By z2jh's own rules for its proxy.
        flows += [(HUB_POD, api, "api", 8001), (USER, proxy, "http", 8000)]
    for source, target, port, number in flows:
        assert may_call(things, source, target, port, number), (source, target, port)
    # Beside, the hub gets to our API as to any private address, which the checks can't weigh; our own side must agree.
    ours = [thing for thing in things if thing not in policies()]
    assert may_call(ours, HUB_POD, api, "api", 8001)
    assert not may_call(ours, USER, api, "api", 8001)
    without = {key: value for key, value in proxy.items() if key != MAY_CALL_USERS}
    assert not may_call(things, without, USER, "notebook-port", 8888), "z2jh's policies are not looked at"


def test_two_ways_in_are_refused():
    assert "one way in" in refusal({"z2jh": {"adopt": True, "release": RELEASE}})


def test_the_umbrella_takes_its_parts_where_they_are():
    chart = yaml.safe_load((EXAMPLES / "umbrella" / "Chart.yaml").read_text())
    ours = yaml.safe_load((ROOT / "helm" / "pointsman" / "Chart.yaml").read_text())
    parts = {part["name"]: part for part in chart["dependencies"]}
    assert parts["pointsman"]["version"] == ours["version"]
    place = parts["pointsman"]["repository"].removeprefix("file://")
    assert (EXAMPLES / "umbrella" / place).resolve() == ROOT / "helm" / "pointsman"
    # What a parent chart hands down must pass the closed schema.
    assert render(values("umbrella/values.yaml")["pointsman"], sets={"global": {"any": {"thing": 1}}}).objects
