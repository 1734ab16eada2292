"""The engine itself: it must see what it is asked to show, else the other tests prove nothing."""

import sys

import pytest
from engine import Refused, dotted, lint, load_all, merged, program, refusal, render

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


STAND_IN_PROGRAM = """#!{python}
import json, os, sys
values = json.load(open(sys.argv[sys.argv.index("--values") + 1]))
if values.get("refuse"):
    sys.exit("Error: such values are refused")
words = [word for word in sys.argv[1:] if "/" not in word]
thing = {{"kind": "ConfigMap", "metadata": {{"name": "a"}}, "words": words, "values": values}}
thing["config"] = os.path.exists(os.environ["KUBECONFIG"])
info = {{"notes": "Noted."}}
print(json.dumps({{"name": "pointsman", "version": 1, "info": info, "manifest": "---\\n" + json.dumps(thing), "hooks": None}}))
"""


def test_a_helm_on_path_is_asked_in_the_same_way(tmp_path, monkeypatch, chart):
    """The plumbing only: a real `helm` is not on every machine that runs this."""
    script = tmp_path / "helm"
    script.write_text(STAND_IN_PROGRAM.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setenv("POINTSMAN_TEST_HELM", str(script))
    program.cache_clear()
    try:
        seen = render({"a": 1}, chart=chart, namespace="somewhere", release="other")
        (found,) = seen.objects
        assert found["words"][:2] == ["install", "other"]
        assert ["--namespace", "somewhere"] == found["words"][2:4]
        assert {"--dry-run=server", "--output=json"} <= set(found["words"])
        assert found["values"] == {"a": 1} and found["config"]
        assert seen.notes == "Noted."
        (found,) = render(chart=chart, upgrade_from=seen).objects
        assert found["words"][0] == "upgrade"
        assert "such values are refused" in refusal({"refuse": True}, chart=chart)
    finally:
        monkeypatch.undo()
        program.cache_clear()
