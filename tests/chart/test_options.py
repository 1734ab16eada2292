"""Values do what they say: each changes something, extras land where they belong, names stay short enough."""

import json
from functools import cache

import pytest
import yaml
from devkit import chart_docs
from engine import CHART, ROOT, dotted, load_all, merged, render
from policies import metadata
from workloads import all_pods

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = {value.name: value for value in chart_docs.values_of((CHART / "values.yaml").read_text())}
# Left to umbrella charts.
UNREAD = {"global"}
SECRET = {"tls": {"mode": "secret", "secretName": "hub-tls", "redirect": False}}
ISSUED = {"certManager": {"enabled": True, "issuerRef": {"name": "a"}, "dnsNames": ["hub.example.org"]}}
EXTERNAL = {
    "etcd": {
        "enabled": False,
        "external": {
            "endpoints": ["https://a:2379"],
            "tls": {"existingSecret": "a", "traefikExistingSecret": "b"},
            "auth": {"existingSecret": "c", "traefikExistingSecret": "d"},
        },
    }
}
OWN_TRAEFIK = {
    "traefik": {"enabled": False, "api": ["dns://traefik.proxies.svc:8099"]},
    "networkPolicy": {"traefikPeers": [{"podSelector": {}}]},
}
# What is given as a whole, for one value alone would be refused.
WHOLE = {"tls.mode": SECRET, "etcd.enabled": EXTERNAL, "traefik.enabled": OWN_TRAEFIK}
# What must be switched on before a value counts, by the value's first words.
BEFORE = {
    "pointsman.autoscaling": {"pointsman": {"autoscaling": {"enabled": True}}},
    "traefik.autoscaling": {"traefik": {"autoscaling": {"enabled": True}}},
    "traefik.service.nodePort": {"traefik": {"service": {"type": "NodePort"}}},
    "traefik.service.httpsNodePort": merged(SECRET, {"traefik": {"service": {"type": "NodePort"}}}),
    "traefik.service.httpsPort": SECRET,
    "traefik.api": OWN_TRAEFIK,
    "networkPolicy.traefikPeers": OWN_TRAEFIK,
    "tls.secretName": SECRET,
    "tls.redirect": SECRET,
    "tls.certManager": merged(SECRET, {"tls": ISSUED}),
    "etcd.external": EXTERNAL,
    "traefik.etcdRelay.throughTLS": {"etcd": {"enabled": False, "external": {"endpoints": ["https://a:2379", "https://b:2379"]}}},
    "ingress": {"ingress": {"enabled": True}},
    "httpRoute": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]}},
    "z2jh.adopt": {"traefik": {"service": {"type": "ClusterIP"}}},
    "z2jh.release": {"z2jh": {"adopt": True}, "traefik": {"service": {"type": "ClusterIP"}}},
    "z2jh.nameOverride": {"z2jh": {"adopt": True}, "traefik": {"service": {"type": "ClusterIP"}}},
    "metrics.serviceMonitor": {"metrics": {"serviceMonitor": {"enabled": True}}},
    "metrics.podMonitor": {"metrics": {"podMonitor": {"enabled": True}}, "networkPolicy": {"metricsFrom": [{"podSelector": {}}]}},
    "metrics.prometheusRule": {"metrics": {"prometheusRule": {"enabled": True}}},
    "metrics.dashboard": {"metrics": {"dashboard": {"enabled": True}}},
}
# What is given for a value where the schema alone doesn't tell.
GIVEN = {
    "auth.token": "a-token-of-some-length-for-trying",
    "traefik.api": ["http://192.0.2.1:8099"],
    "etcd.external.endpoints": ["https://b:2380"],
    "etcd.replicas": 5,
    "etcd.persistence.size": "2Gi",
    "etcd.external.tls.existingSecret": "e",
    "etcd.external.auth.existingSecret": "e",
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}],
    "httpRoute.parentRefs": [{"name": "b"}],
    "traefik.service.type": "NodePort",
    "traefik.service.loadBalancerIP": "192.0.2.1",
    "traefik.version": "3.7.9",
    "traefik.dynamicFiles": {"own.yaml": {"http": {}}},
    "traefik.image.tag": "v3.7.9",
    "metrics.serviceMonitor.interval": "10s",
    "metrics.podMonitor.interval": "10s",
    "pointsman.autoscaling.minReplicas": 3,
    "traefik.autoscaling.minReplicas": 3,
}
LISTS = {
    "extraEnv": [{"name": "EXTRA", "value": "1"}],
    "extraVolumes": [{"name": "extra", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "snapshot", "mountPath": "/extra"}],
    "tolerations": [{"key": "extra", "operator": "Exists"}],
    "topologySpreadConstraints": [{"maxSkew": 3, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway"}],
}
DIGEST = "sha256:" + "0123456789abcdef" * 4


def schema_of(name):
    node = SCHEMA
    for word in name.split("."):
        node = node["properties"][word]
    return node


def another(value, base):
    """A value that differs from what is there, and fits the schema."""
    name, default, last = value.name, value.default, value.path[-1]
    node = schema_of(name)
    for word in value.path:
        base = base.get(word, {}) if isinstance(base, dict) else {}
    if name in GIVEN:
        return GIVEN[name]
    if last == "digest":
        return DIGEST
    if "enum" in node:
        return [word for word in node["enum"] if word != default and word][0]
    if isinstance(default, bool):
        return not (default if base == {} else base)
    if isinstance(default, list):
        items = node["items"]
        one = items["enum"][0] if "enum" in items else {"extra": "x"} if items["type"] == "object" else "10.9.8.7/32"
        return LISTS.get(last, [one])
    if isinstance(default, dict):
        return {"resources": {"requests": {"cpu": "7m"}}, "affinity": {"nodeAffinity": {}}, "behavior": {"scaleUp": {"stabilizationWindowSeconds": 7}}}.get(last, {"extra": "x"})
    if isinstance(default, int):
        return default + 1
    if "integer" in str(node.get("type")):
        return 30123
    return f"{default}x" if isinstance(default, str) else 3


def what_comes(values):
    return what_comes_of(json.dumps(values))


@cache
def what_comes_of(text):
    seen = render(json.loads(text))
    return [seen.everything, seen.notes]


def before(name):
    found = {}
    for words, values in BEFORE.items():
        if name == words or name.startswith(f"{words}."):
            found = merged(found, values)
    return found


@pytest.mark.parametrize("name", [name for name in VALUES if name not in UNREAD])
def test_a_value_changes_something(name):
    base = before(name)
    change = WHOLE.get(name) or dotted({name: another(VALUES[name], base)})
    same = what_comes(merged(base, change)) == what_comes(base)
    assert not same, f"nothing reads {name}"


def test_labels_and_annotations_for_all_are_on_all():
    seen = render(
        {"commonLabels": {"team": "jupyter"}, "commonAnnotations": {"note": "x"}},
        CHART / "ci" / "hpa-values.yaml",
        sets={"auth.token": "a-token-of-some-length-for-trying", "ingress": {"enabled": True, "annotations": {"own": "y"}}},
    )
    for thing in seen.everything:
        assert thing["metadata"]["labels"]["team"] == "jupyter", thing["metadata"]
        assert thing["metadata"]["annotations"]["note"] == "x", thing["metadata"]
    assert seen.one("Ingress", "pointsman")["metadata"]["annotations"] == {"note": "x", "own": "y"}
    for thing in seen.of_kind("Deployment", "StatefulSet"):
        assert "team" not in thing["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize(
    ("release", "sets"),
    [
        ("r" * 53, {}),
        ("r", {"nameOverride": "n" * 60}),
        ("r", {"fullnameOverride": "f" * 60}),
        ("ends-with-a-dash-" + "x" * 22 + "-y", {}),
    ],
    ids=["release", "nameOverride", "fullnameOverride", "dash"],
)
def test_long_names_stay_within_kubernetes_limits(release, sets):
    seen = render(CHART / "ci" / "hpa-values.yaml", sets=sets, release=release)
    assert list(metadata(seen.everything)) == []
    for thing in seen.of_kind("StatefulSet"):
        # Its pods get a number, and its revisions a hash of ten letters, in a label.
        assert len(thing["metadata"]["name"]) <= 52


def test_two_releases_in_one_namespace_share_nothing():
    one, two = (
        {(t["kind"], t["metadata"]["name"]) for t in render(release=name).everything} for name in ("first", "second")
    )
    assert not one & two
    installations = [
        next(v["value"] for v in pods.containers[0]["env"] if v["name"] == "POINTSMAN_INSTALLATION")
        for seen in (render(release="first"), render(release="second"))
        for pods in all_pods(seen.objects) if pods.component == "api"
    ]  # fmt: skip
    assert len(set(installations)) == 2


def test_two_families_of_addresses_are_asked_for_everywhere():
    seen = render(sets={"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]})
    for service in seen.of_kind("Service"):
        assert service["spec"]["ipFamilyPolicy"] == "RequireDualStack", service["metadata"]["name"]
        assert service["spec"]["ipFamilies"] == ["IPv6", "IPv4"], service["metadata"]["name"]


def test_objects_of_ones_own_may_be_templates():
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-text'}\n"
    plain = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-map"}}
    seen = render(sets={"extraObjects": [text, plain]})
    names = {thing["metadata"]["name"] for thing in seen.of_kind("ConfigMap")}
    assert names == {"pointsman-text", "pointsman-map"}


def test_an_ingress_lets_websockets_be_quiet_and_a_route_has_no_limit():
    seen = render(CHART / "ci" / "entry-values.yaml")
    assert seen.one("HTTPRoute", "pointsman")["spec"]["rules"][0]["timeouts"] == {"request": "0s"}
    readme = (CHART / "README.md").read_text()
    for name in ("proxy-read-timeout", "proxy-send-timeout", "timeout-tunnel", "idle_timeout", "BackendConfig"):
        assert name in readme


def test_openshift_chooses_users_itself():
    plain, open_shift, told = (
        all_pods(seen.everything)
        for seen in (
            render(),
            render(api_versions=("security.openshift.io/v1",)),
            render(sets={"openshift": True}),
        )
    )
    for pods in plain:
        assert pods.spec["securityContext"]["runAsUser"] > 0, pods.name
    for pods in open_shift + told:
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pods.spec["securityContext"]), pods.name


def test_the_chart_takes_the_values_it_prints():
    """What `helm show values` gives can be given back."""
    render(CHART / "values.yaml")
    assert load_all(yaml.safe_dump(yaml.safe_load((CHART / "values.yaml").read_text())))


@pytest.mark.parametrize("values", [{"traefik.connections.enabled": False}, None], ids=["switched off", "own Traefiks"])
def test_open_websockets_are_seen_from_beside_each_traefik_unless_it_is_off(values):
    beside = render().objects
    assert "--connections-port=8098" in str(beside) and "'port': 'connections'" in str(beside)
    off = render(OWN_TRAEFIK) if values is None else render(sets=values)
    assert "connections" not in str([pods.containers for pods in all_pods(off.objects)])
    assert "'port': 'connections'" not in str(off.objects)
