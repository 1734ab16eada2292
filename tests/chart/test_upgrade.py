"""An upgrade touches no field that Kubernetes won't change: from each released version, and between values."""

import itertools
import shutil
from pathlib import Path

import pytest
import yaml
from cases import CASES, RELEASE, WRITES, rendered, values_file
from engine import CHART, refusal, render

RELEASED = Path(__file__).with_name("released")
VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
# What may change in a StatefulSet; the rest of its spec may not.
CHANGEABLE = {
    "replicas", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds", "ordinals",
    "revisionHistoryLimit",
}  # fmt: skip


def immutable(things):
    """The fields of all objects that Kubernetes refuses to change, by kind and name."""
    found = {}
    for thing in things:
        spec, kept = thing.get("spec", {}), {}
        if thing["kind"] in ("Deployment", "DaemonSet"):
            kept = {"selector": spec["selector"]}
        elif thing["kind"] == "StatefulSet":
            kept = {key: value for key, value in spec.items() if key not in CHANGEABLE}
        elif thing["kind"] == "Service":
            kept = {"clusterIP": spec.get("clusterIP")}
        elif thing["kind"] == "Job":
            kept = {"template": spec["template"], "selector": spec.get("selector")}
        elif thing["kind"] in ("Secret", "ConfigMap"):
            kept = {"immutable": thing.get("immutable"), "type": thing.get("type")}
        elif thing["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            kept = {"roleRef": thing["roleRef"]}
        found[f"{thing['kind']}/{thing['metadata']['name']}"] = kept
    return {name: kept for name, kept in found.items() if kept}


def changed(before, after):
    """The names of objects that are in both and whose fixed fields differ."""
    return sorted(name for name in before.keys() & after.keys() if before[name] != after[name])


def current():
    return {case: immutable(rendered(case).objects) for case in CASES}


@pytest.mark.written
def test_this_version_keeps_what_it_was_released_with():
    path = RELEASED / f"{VERSION}.yaml"
    if WRITES:
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(current(), default_flow_style=None, width=130))
    assert path.exists(), f"the fixed fields of {VERSION} are not kept; write them with: make chart-accept"
    assert yaml.safe_load(path.read_text()) == current()


@pytest.mark.parametrize("path", sorted(RELEASED.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_upgrade_from_a_released_version_goes_through(path):
    for case, before in yaml.safe_load(path.read_text()).items():
        if case not in CASES:
            continue
        after = current()[case]
        assert changed(before, after) == []
        # One with another name would begin with empty volumes.
        lost = {name for name in before if name.startswith("StatefulSet/")} - set(after)
        assert not lost, f"{lost} would go away, and their data stay behind"


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations([c for c in CASES if c != "minimal"], 2)))
def test_values_may_be_changed_into_each_other(first, second):
    assert changed(current()[first], current()[second]) == []


@pytest.mark.parametrize("case", ["hpa", "tls", "adopt"])
def test_helm_upgrades_between_values(case):
    before = rendered("default")
    there = before.of_kind("StatefulSet")
    after = render(values_file(case), upgrade_from=before, existing=there, release=RELEASE)
    assert after.release["version"] == 2
    assert immutable(after.objects) == current()[case]


def test_from_one_of_each_to_several_needs_a_new_etcd():
    """From the minimal values the members and their volumes would change: that is refused before Kubernetes is asked."""
    before = rendered("minimal")
    assert changed(current()["minimal"], current()["default"]) == ["StatefulSet/pointsman-etcd"]
    # With no values at all Helm would keep those of before.
    text = refusal(values_file("hpa"), upgrade_from=before, existing=before.of_kind("StatefulSet"))
    assert "etcd has 1 members and etcd.replicas is 3" in text
    # All but etcd may grow.
    sets = {"etcd.replicas": 1, "etcd.persistence.enabled": False}
    after = render(sets=sets, upgrade_from=before, existing=before.of_kind("StatefulSet"))
    assert changed(current()["minimal"], immutable(after.objects)) == []


def test_a_new_chart_version_changes_no_fixed_field(tmp_path):
    newer = tmp_path / "pointsman"
    shutil.copytree(CHART, newer)
    text = (newer / "Chart.yaml").read_text()
    (newer / "Chart.yaml").write_text(text.replace(f"ersion: {VERSION}", "ersion: 9.8.7"))
    after = render(values_file("default"), chart=newer, upgrade_from=rendered("default"), release=RELEASE)
    assert after.one("Deployment", "pointsman")["metadata"]["labels"]["app.kubernetes.io/version"] == "9.8.7"
    assert changed(current()["default"], immutable(after.objects)) == []


def test_a_restart_is_asked_for_only_where_it_is_needed():
    """What changes the pods of Pointsman or Traefik restarts them; a change of others' values must not."""
    before = render()
    after = render(
        sets={
            "metrics.prometheusRule.enabled": True,
            "pointsman.autoscaling.enabled": True,
            "networkPolicy.enabled": False,
            "ingress.enabled": True,
            "traefik.service.annotations": {"a": "b"},
        }
    )
    for name in ("pointsman", "pointsman-traefik"):
        assert template(before, name) == template(after, name)
    # A setting that Traefik's configuration holds.
    trusting = render(sets={"traefik.trustedIPs": ["10.0.0.0/8"]})
    assert template(before, "pointsman-traefik") != template(trusting, "pointsman-traefik")
    # A token in the values.
    one, two = (render(sets={"auth.token": token * 32}) for token in "ab")
    assert template(one, "pointsman") != template(two, "pointsman")


def template(seen, name):
    return seen.one("Deployment", name)["spec"]["template"]


def test_a_changed_field_is_seen():
    before = immutable(rendered("default").objects)
    for name, key in [
        ("Deployment/pointsman", "selector"),
        ("StatefulSet/pointsman-etcd", "serviceName"),
        ("StatefulSet/pointsman-etcd", "volumeClaimTemplates"),
        ("StatefulSet/pointsman-etcd", "podManagementPolicy"),
        ("Service/pointsman-traefik-pods", "clusterIP"),
    ]:
        assert changed(before, {**before, name: {**before[name], key: "other"}}) == [name]
