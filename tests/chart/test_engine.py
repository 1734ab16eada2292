"""The engine itself: it must see what it is asked to show, else the other tests prove nothing."""

import pytest
from engine import Refused, dotted, lint, load_all, merged, refusal, render

CHART = """
apiVersion: v2
name: probe
version: 1.2.3
kubeVersion: ">=1.28.0-0"
"""
TEMPLATE = """
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}", namespace: "{{ .Release.Namespace }}"}
data:
  upgrade: {{ .Release.IsUpgrade | quote }}
  kube: {{ .Capabilities.KubeVersion.Version }}
  monitors: {{ .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" | quote }}
  deep: {{ .Values.deep.er | quote }}
  found: {{ (lookup "v1" "Secret" .Release.Namespace "old").data | toJson | quote }}
"""
HOOK = """
apiVersion: v1
kind: Pod
metadata: {name: try, annotations: {helm.sh/hook: test}}
spec: {containers: [{name: try, image: try}]}
"""


@pytest.fixture
def chart(tmp_path):
    folder = tmp_path / "probe"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(CHART)
    (folder / "values.yaml").write_text("deep: {er: default, other: 1}\n")
    (folder / "templates" / "map.yaml").write_text(TEMPLATE)
    (folder / "templates" / "try.yaml").write_text(HOOK)
    (folder / "templates" / "NOTES.txt").write_text("Hello {{ .Values.deep.er }}.\n")
    return folder


def test_values_the_cluster_and_hooks_are_seen(chart):
    seen = render({"deep": {"er": "file"}}, chart=chart, sets={"deep.er": "set"}, kube_version="1.30.2", namespace="another")
    (found,) = seen.objects
    assert found["metadata"] == {"name": "pointsman", "namespace": "another"}
    assert found["data"] == {
        "upgrade": "false", "kube": "v1.30.2", "monitors": "true", "deep": "set", "found": "null",
    }  # fmt: skip
    assert [hook["kind"] for hook in seen.hooks] == ["Pod"]
    assert seen.notes == "Hello set.\n"
    (bare,) = render(chart=chart, api_versions=()).objects
    assert bare["data"]["monitors"] == "false"
    assert bare["data"]["deep"] == "default"


def test_an_upgrade_sees_what_is_there(chart):
    before = render(chart=chart)
    old = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "old", "namespace": "jhub"}, "data": {"a": "Yg=="}}
    (found,) = render(chart=chart, upgrade_from=before, existing=[old]).objects
    assert found["data"]["upgrade"] == "true"
    assert found["data"]["found"] == '{"a":"Yg=="}'


def test_refusals_keep_their_words(chart):
    (chart / "templates" / "guard.yaml").write_text('{{ fail "no such luck" }}')
    assert "no such luck" in refusal(chart=chart)
    (chart / "templates" / "guard.yaml").unlink()
    assert ">=1.28.0-0" in refusal(chart=chart, kube_version="1.27.9")
    (chart / "templates" / "rule.yaml").write_text(
        "apiVersion: monitoring.coreos.com/v1\nkind: PodMonitor\nmetadata: {name: a}"
    )
    assert 'no matches for kind "PodMonitor"' in refusal(chart=chart, api_versions=())
    with pytest.raises(AssertionError, match="Helm takes these values"):
        refusal({"deep": {}}, chart=chart)


def test_lint_complains(chart):
    assert lint({}, chart) == []
    (chart / "templates" / "map.yaml").write_text("a: {{ .Values.none.at.all }}\n")
    assert lint({}, chart) != []


def test_a_key_that_is_there_twice_is_an_error():
    with pytest.raises(Exception, match="'b' is there twice"):
        load_all("a: {b: 1, b: 2}")


def test_values_are_laid_over_each_other():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": None}, "d": {"e": 4}}) == {
        "a": {"b": None, "c": 2}, "d": {"e": 4},
    }  # fmt: skip
    assert dotted({"a.b": 1, "a.c.d": 2}) == {"a": {"b": 1, "c": {"d": 2}}}


def test_a_failure_of_the_stand_in_is_no_success(chart):
    with pytest.raises(Refused):
        render(chart=chart / "nowhere")
