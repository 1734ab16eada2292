"""Alerts and dashboard ask for metrics and labels that there are: in the documents, and in a real etcd and Traefik."""

import json
import re
import socket
import sys
import time
import urllib.request

import pytest
import yaml
from cases import rendered
from engine import CHART, ROOT, render

sys.path.append(str(ROOT / "scripts"))
from devkit.child import Child  # noqa: E402
from devkit.places import program  # noqa: E402
from devkit.ports import free_port  # noqa: E402

# Of Prometheus itself: what every series of a pod has.
TARGET_LABELS = {"namespace", "pod", "job", "instance", "container", "le"}
WORDS = {
    "absent", "and", "by", "count", "histogram_quantile", "increase", "max", "min", "or", "rate", "sum", "vector",
}  # fmt: skip
DASHBOARD = json.loads((CHART / "dashboard.json").read_text())


def documented():
    """Metrics of docs/metrics.md: names, each with its kind and labels. A test of Pointsman holds them to the code."""
    found = {}
    for row in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        if row.startswith("|") and "| Missing" not in row:
            cells = row.split("|")
            for name, labels in re.findall(r"`([a-z_]+)(?:\{([a-z_,]+)\})?`", cells[1]):
                found[name] = (cells[2].strip(), set(filter(None, labels.split(","))))
    return found


def asked(expression):
    """The metrics that an expression asks for, each with the labels it selects by; and the labels it groups by."""
    plain = re.sub(r'"[^"]*"', '""', expression)
    metrics = [
        (name, set(re.findall(r"([a-zA-Z_]\w*)\s*[=!]~?", selection)))
        for name, selection in re.findall(r"([a-z_][a-z0-9_]*)\{([^}]*)\}", plain)
    ]
    groups = {label.strip() for group in re.findall(r"by \(([^)]*)\)", plain) for label in group.split(",")}
    rest = re.sub(r"\{[^}]*\}|by \([^)]*\)|\[[^\]]*\]|\"\"", " ", plain)
    bare = set(re.findall(r"\b[a-z_][a-z0-9_]*\b", rest)) - WORDS - {name for name, _ in metrics}
    return metrics, groups, bare


def alerts():
    (rule,) = rendered("hpa").of_kind("PrometheusRule")
    return {alert["alert"]: alert for group in rule["spec"]["groups"] for alert in group["rules"]}


def panels():
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions():
    found = {f"alert {name}": alert["expr"] for name, alert in alerts().items()}
    for panel in panels():
        for target in panel["targets"]:
            found[f"panel {panel['title']} {target['refId']}"] = target["expr"]
    return found


EXPRESSIONS = expressions()


def base(name):
    """A histogram's name without the ending of one of its series."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def served(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def wait_for(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while True:
        try:
            found = condition()
            if found:
                return found
            why = "not yet"
        except OSError as error:
            why = error
        assert time.monotonic() < end, f"{what} within {seconds} s: {why}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def etcd_metrics(tmp_path_factory):
    folder = tmp_path_factory.mktemp("etcd")
    client, peer, metrics = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
    words = ["--name=a", f"--data-dir={folder / 'data'}", f"--initial-cluster=a={peer}", "--log-level=error"]
    words += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-metrics-urls={metrics}"]
    words += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
    child = Child("etcd", [program("etcd"), *words], folder / "log").start()
    try:
        wait_for("etcd is healthy", lambda: "true" in served(f"{metrics}/health"))
        yield served(f"{metrics}/metrics")
    finally:
        child.stop()


@pytest.fixture(scope="module")
def traefik_metrics(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traefik")
    public, private = free_port(), free_port()
    # What Traefik answers by itself it doesn't count, so it is asked through itself.
    service = f'{{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{private}"}}]}}}}'
    (folder / "routes.yaml").write_text(
        f"http: {{routers: {{a: {{rule: 'PathPrefix(`/`)', service: a}}}}, services: {{a: {service}}}}}"
    )
    (folder / "traefik.yaml").write_text(
        f"""
entryPoints: {{web: {{address: "127.0.0.1:{public}"}}, traefik: {{address: "127.0.0.1:{private}"}}}}
providers: {{file: {{filename: {folder / "routes.yaml"}}}}}
api: {{insecure: true}}
ping: {{}}
metrics: {{prometheus: {{addEntryPointsLabels: true, addServicesLabels: false, addRoutersLabels: true, buckets: [1]}}}}
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
"""
    )
    child = Child("traefik", [program("traefik"), f"--configFile={folder / 'traefik.yaml'}"], folder / "log").start()
    try:
        wait_for("Traefik serves", lambda: served(f"http://127.0.0.1:{public}/ping"))
        url = f"http://127.0.0.1:{private}/metrics"
        with socket.create_connection(("127.0.0.1", public)):  # one that stays open
            yield wait_for("Traefik counts", lambda: "traefik_router_requests_total" in served(url) and served(url))
    finally:
        child.stop()


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_our_metrics_are_documented(where):
    known = documented()
    metrics, groups, bare = asked(EXPRESSIONS[where])
    assert metrics, "the expression asks for nothing"
    assert not bare, f"{bare} have no selection, so another release's are meant too"
    labels = set()
    for name, selected in metrics:
        assert "namespace" in selected, f"{name} of every namespace is meant"
        if name.startswith(("etcd_", "traefik_")):
            continue
        kind, own = known.get(base(name), known.get(name, (None, None)))
        assert kind, f"docs/metrics.md has no {name}"
        assert (kind == "histogram") == name.endswith(("_bucket", "_sum", "_count")), f"{name} is a {kind}"
        if "rate(" in EXPRESSIONS[where] or "increase(" in EXPRESSIONS[where]:
            assert kind != "gauge" or f"rate({name}" not in EXPRESSIONS[where], f"{name} is a gauge"
        assert selected <= own | TARGET_LABELS, f"{name} has no label {selected - own}"
        labels |= own
    ours = [name for name, _ in metrics if not name.startswith(("etcd_", "traefik_"))]
    assert not ours or groups <= labels | TARGET_LABELS, f"no metric has the label {groups - labels - TARGET_LABELS}"


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_expressions_are_whole(where):
    text = re.sub(r'"[^"]*"', "", EXPRESSIONS[where])
    for opening, closing in ("()", "{}", "[]"):
        assert text.count(opening) == text.count(closing)
    assert "SELECTION" not in text


def test_metrics_of_etcd_are_there(etcd_metrics):
    names = {name for text in EXPRESSIONS.values() for name, _ in asked(text)[0] if name.startswith("etcd_")}
    assert len(names) >= 4
    for name in names:
        assert re.search(rf"^{name}\b", etcd_metrics, re.M), f"etcd has no {name}"


def test_metrics_of_traefik_are_there(traefik_metrics):
    names = {name for text in EXPRESSIONS.values() for name, _ in asked(text)[0] if name.startswith("traefik_")}
    assert names
    for name in names:
        assert re.search(rf"^{name}\b", traefik_metrics, re.M), f"Traefik has no {name}"


def test_what_the_monitor_leaves_out_is_what_grows_with_users(traefik_metrics):
    monitor = rendered("hpa").one("PodMonitor", "pointsman-traefik")
    (dropped,) = monitor["spec"]["podMetricsEndpoints"][0]["metricRelabelings"]
    assert (dropped["action"], dropped["sourceLabels"]) == ("drop", ["__name__"])
    names = set(re.findall(r"^(traefik_\w+)", traefik_metrics, re.M))
    gone = {name for name in names if re.fullmatch(dropped["regex"], name)}
    assert gone == {name for name in names if name.startswith(("traefik_router_", "traefik_service_"))} != set()
    assert not gone & {name for text in EXPRESSIONS.values() for name, _ in asked(text)[0]}


def test_an_invented_metric_or_label_is_seen():
    metrics, groups, bare = asked('sum by (pod, a) (rate(pointsman_x_total{namespace="n",status=~"5.."}[5m])) > other')
    assert metrics == [("pointsman_x_total", {"namespace", "status"})]
    assert groups == {"pod", "a"}
    assert bare == {"other"}


def test_alerts_can_be_acted_upon():
    for name, alert in alerts().items():
        assert name.startswith("Pointsman")
        for key in ("summary", "description"):
            assert alert["annotations"][key].endswith("."), f"{name}: {key} is no sentence"
        used = set(re.findall(r"\$labels\.(\w+)", str(alert["annotations"])))
        _, groups, _ = asked(alert["expr"])
        aggregated = re.match(r"\s*(max|min|sum|count|absent)\b", alert["expr"])
        assert used <= (groups if aggregated else TARGET_LABELS), f"{name} uses labels that are aggregated away"


def test_what_docs_say_to_watch_is_watched():
    text = (ROOT / "docs" / "metrics.md").read_text().split("## What to watch")[1]
    to_watch = {base(name) for name in re.findall(r"(pointsman_[a-z_]+)", text)} - {"pointsman_not_ready"}
    watched = {base(name) for alert in alerts().values() for name, _ in asked(alert["expr"])[0]}
    # Behind a Traefik that lags come these changes; one alert is enough.
    assert to_watch - watched == {"pointsman_changes_without_laggard_total"}


def test_alerts_on_etcd_are_left_out_with_an_etcd_of_ones_own():
    sets = {"etcd.enabled": False, "etcd.external.endpoints": ["http://e:2379"], "metrics.prometheusRule.enabled": True}
    (rule,) = render(sets=sets).of_kind("PrometheusRule")
    names = {alert["alert"] for group in rule["spec"]["groups"] for alert in group["rules"]}
    of_etcd = {alert["alert"] for alert in yaml.safe_load((CHART / "alerts.yaml").read_text()) if "needs" in alert}
    assert of_etcd and names == set(alerts()) - of_etcd


def test_the_dashboard_is_drawn_without_overlaps():
    taken = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "namespace"}
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_the_dashboards_map_holds_the_file():
    (found,) = [thing for thing in rendered("hpa").of_kind("ConfigMap")]
    assert json.loads(found["data"]["pointsman.json"]) == DASHBOARD
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"] == {"grafana_folder": "JupyterHub"}
