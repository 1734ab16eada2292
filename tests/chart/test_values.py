"""The schema of the values: closed, complete, and its errors name the value."""

import json

import pytest
import yaml
from engine import CHART, refusal, render

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())

# Values whose keys are the user's, or are those of Kubernetes.
FREE = {"affinity", "behavior", "extraConfig", "global", "resources"}


def nodes(schema, path=()):
    """Every place of the schema, with its path."""
    yield path, schema
    for name, node in schema.get("properties", {}).items():
        yield from nodes(node, (*path, name))


def leaves(values, path=()):
    """The paths of all values; a map that is free is one value."""
    for name, value in values.items():
        here = (*path, name)
        if isinstance(value, dict) and value and "properties" in schema_at(here):
            yield from leaves(value, here)
        else:
            yield here


def schema_at(path):
    node = SCHEMA
    for name in path:
        node = node.get("properties", {}).get(name, {})
    return node


def test_it_is_written_in_what_old_helms_know():
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    text = json.dumps(SCHEMA)
    for word in ("$ref", "$defs", "unevaluatedProperties", "dependentRequired", "prefixItems"):
        assert f'"{word}"' not in text


def test_it_is_closed_everywhere():
    for path, node in nodes(SCHEMA):
        if node.get("type") == "object" and path[-1:] not in {(name,) for name in FREE}:
            assert "additionalProperties" in node, f"{'.'.join(path)} takes any key"
            assert node["additionalProperties"] is not True, f"{'.'.join(path)} takes any key"


def test_every_place_says_what_it_takes():
    for path, node in nodes(SCHEMA):
        assert {"type", "enum", "anyOf"} & set(node), f"{'.'.join(path)} takes anything"
        if node.get("type") == "array":
            assert {"type", "enum", "anyOf"} & set(node["items"]), f"{'.'.join(path)} takes any items"


def test_each_value_is_in_the_schema_and_the_other_way_round():
    in_values = set(leaves(VALUES))
    in_schema = {path for path, node in nodes(SCHEMA) if path and "properties" not in node}
    assert in_values == in_schema


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        ({"traefik.replica": 3}, ["traefik", "replica"]),
        ({"treafik": {}}, ["treafik"]),
        ({"etcd.persistence.storageclass": "fast"}, ["etcd/persistence", "storageclass"]),
        ({"auth.existingSecret": "hub"}, ["auth/existingSecret"]),
        ({"pointsman.replicas": "2"}, ["pointsman/replicas"]),
        ({"pointsman.replicas": 0}, ["pointsman/replicas"]),
        ({"traefik.replicas": -1}, ["traefik/replicas"]),
        ({"traefik.drainSeconds": -5}, ["traefik/drainSeconds"]),
        ({"traefik.requestSeconds": 0}, ["traefik/requestSeconds"]),
        ({"traefik.accessLog": "yes"}, ["traefik/accessLog"]),
        ({"traefik.trustedIPs": "10.0.0.0/8"}, ["traefik/trustedIPs"]),
        ({"traefik.service.type": "Loadbalancer"}, ["traefik/service/type"]),
        ({"traefik.service.port": 70000}, ["traefik/service/port"]),
        ({"pointsman.logLevel": "trace"}, ["pointsman/logLevel"]),
        ({"pointsman.laggard.policy": "ignore"}, ["pointsman/laggard/policy"]),
        ({"pointsman.image.digest": "0123"}, ["pointsman/image/digest"]),
        ({"pointsman.podLabels": {"a": 1}}, ["pointsman/podLabels", "a"]),
        ({"pointsman.extraArgs": {"a": 1}}, ["pointsman/extraArgs"]),
        ({"pointsman.pdb.maxUnavailable": "half"}, ["pointsman/pdb/maxUnavailable"]),
        ({"tls.mode": "on"}, ["tls/mode"]),
        ({"tls.certManager.issuerRef.kind": "issuer"}, ["tls/certManager/issuerRef/kind"]),
        ({"ipFamilyPolicy": "DualStack"}, ["ipFamilyPolicy"]),
        ({"ipFamilies": ["IPv4", "IPv4"]}, ["ipFamilies"]),
        ({"metrics.serviceMonitor.interval": "often"}, ["metrics/serviceMonitor/interval"]),
        ({"etcd.replicas": -3}, ["etcd/replicas"]),
        ({"etcd.prefix": ""}, ["etcd/prefix"]),
        ({"etcd.external.endpoints": "https://etcd:2379"}, ["etcd/external/endpoints"]),
    ],
    ids=str,
)
def test_a_typical_mistake_is_named(sets, named):
    text = refusal(sets=sets).replace(".", "/")
    for words in named:
        assert words in text


def test_several_mistakes_are_told_at_once():
    text = refusal(sets={"pointsman.replicas": "2", "traefik.replica": 2})
    assert "replicas" in text and "'replica'" in text


def test_an_umbrella_chart_may_have_globals_and_conditions():
    render(sets={"global": {"anything": {"deep": 1}}})


def test_an_image_may_have_a_digest():
    digest = "sha256:" + "0123456789abcdef" * 4
    sets = {f"{part}.image.digest": digest for part in ("pointsman", "traefik", "etcd")}
    seen = render(sets=sets)
    images = {c["image"] for t in seen.of_kind("Deployment", "StatefulSet")
              for c in t["spec"]["template"]["spec"]["containers"]}  # fmt: skip
    repositories = {VALUES[part]["image"]["repository"] for part in ("pointsman", "traefik", "etcd")}
    assert images == {f"{repository}@{digest}" for repository in repositories}
