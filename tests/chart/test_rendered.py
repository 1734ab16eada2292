"""Every values file of `ci/`: what it renders to, and whether Kubernetes and our own policies would take it."""

import copy
import json
import re
from functools import cache
from pathlib import Path

import kubernetes_validate
import pytest
import references
import yaml
from cases import CASES, compare, rendered, values_file
from custom_resources import SCHEMAS, complaints_about
from engine import CHART, lint, values_of
from policies import CHECKS

SNAPSHOTS = Path(__file__).with_name("snapshots")
OLDEST = re.search(r">=(\d+\.\d+)", yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]).group(1)
KUBERNETES = [OLDEST, "1.32", kubernetes_validate.latest_version()]

# The Secrets that must be there before the chart is.
OUTSIDE = {
    "default": {"hub"},
    "adopt": {"hub"},
    "entry": {"hub"},
    "hpa": {"hub"},
    "minimal": set(),
    "own-traefik": {"hub"},
    "tls": {"hub"},
    "traefik": {"hub-tls", "pointsman-etcd", "traefik-etcd", "pointsman-login", "traefik-login"},
    "external-etcd": {"hub", "pointsman-etcd", "traefik-etcd", "pointsman-login", "traefik-login"},
}


class Compact(yaml.SafeDumper):
    """Small lists and maps on one line, so that a snapshot can be read."""

    def ignore_aliases(self, data):
        return True


def without_noise(thing):
    """An object without what changes with each version or with each render."""
    thing = copy.deepcopy(thing)

    def clean(node):
        for key, value in list(node.items()) if isinstance(node, dict) else enumerate(node):
            if isinstance(value, (dict, list)):
                clean(value)
            elif key in ("helm.sh/chart", "app.kubernetes.io/version"):
                node[key] = "VERSION"
            elif isinstance(key, str) and key.startswith("checksum/"):
                node[key] = "HASH"
            elif isinstance(value, str) and value.startswith("quay.io/pointsman/pointsman:"):
                node[key] = "quay.io/pointsman/pointsman:VERSION"

    clean(thing)
    if thing["metadata"]["name"].endswith("-dashboard"):
        thing["data"] = {name: "PANELS" for name in thing["data"]}
    return thing


@pytest.mark.written
@pytest.mark.parametrize("case", CASES)
def test_what_is_rendered_is_what_was_accepted(case):
    things = [without_noise(thing) for thing in rendered(case).everything]
    text = yaml.dump_all(things, Dumper=Compact, default_flow_style=None, width=130, sort_keys=False)
    compare(SNAPSHOTS / f"{case}.yaml", text)


@pytest.mark.written
@pytest.mark.parametrize("case", CASES)
def test_notes_are_what_was_accepted(case):
    text = re.sub(r"^Pointsman \S+", "Pointsman VERSION", rendered(case).notes)
    compare(SNAPSHOTS / f"{case}.notes.txt", text)


@pytest.mark.parametrize("case", CASES)
def test_helm_lint_has_no_complaints(case):
    assert lint(values_of(values_file(case))) == []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_would_take_it(case, version):
    for thing in rendered(case).everything:
        if thing["apiVersion"].split("/")[0] not in {key.split("/")[0] for key in SCHEMAS}:
            validated(json.dumps(thing), version)


@cache
def validated(text, version):
    """Many values render the same object; each is looked at once."""
    kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_custom_resources_have_their_form(case):
    found = [line for thing in rendered(case).everything for line in complaints_about(thing)]
    assert found == []


def test_every_custom_resource_is_rendered_by_some_values():
    seen = {f"{thing['apiVersion']} {thing['kind']}" for case in CASES for thing in rendered(case).everything}
    assert set(SCHEMAS) <= seen


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES)
def test_policies_are_kept(case, check):
    # What `extraObjects` brings is the user's own.
    things = [thing for thing in rendered(case).everything if not thing["metadata"]["name"].endswith("-extra")]
    found = list(check(things))
    if case == "minimal" and check.__name__ == "network_cover":
        assert found, "minimal has networkPolicy.enabled: false, and pods that are covered all the same"
        return
    assert found == []


@pytest.mark.parametrize("case", CASES)
def test_references_lead_somewhere(case):
    things = rendered(case).everything
    assert list(references.inside(things)) == []
    assert references.outside(things) == {("Secret", name) for name in OUTSIDE[case]}
