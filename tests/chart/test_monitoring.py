"""Alerts and dashboard ask for metrics and labels that there are: in the documents, and in a real etcd and Traefik."""

import json
import re
import socket
import time
import urllib.request
from dataclasses import dataclass

import promql_parser
import pytest
import yaml
from cases import rendered
from devkit.child import Child
from devkit.places import program
from devkit.ports import free_port
from engine import CHART, ROOT, render

# Of Prometheus itself: what every series of a pod has.
TARGET_LABELS = {"namespace", "pod", "job", "instance", "container", "le"}
DASHBOARD = json.loads((CHART / "dashboard.json").read_text())


def documented():
    """Metrics of docs/metrics.md: names, each with its kind and labels. A test of Pointsman holds them to the code."""
    found = {}
    for row in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        if row.startswith("|") and "| Missing" not in row:
            cells = row.split("|")
            for name, labels in re.findall(r"`([a-z_]+)(?:\{([a-z_,]+)\})?`", cells[1]):
                kind = cells[2].strip()
                if kind not in ("gauge", "counter", "histogram"):
                    # Of those of configurable-http-proxy the page tells no kind: all count, but some of the process.
                    kind = "counter" if name.endswith("_total") or not name.startswith("process_") else "gauge"
                found[name] = (kind, set(filter(None, labels.split(","))))
    return found


@dataclass
class Asked:
    """A metric that an expression asks for: by which labels, and within which function over a time."""

    name: str
    labels: set
    function: str | None


def asked(expression):
    """The metrics that an expression asks for, and the labels that it groups by. An error if it is no PromQL."""
    metrics, groups = [], set()

    def visit(node, function=None):
        if isinstance(node, promql_parser.VectorSelector):
            metrics.append(Asked(node.name, {matcher.name for matcher in node.matchers.matchers}, function))
        elif isinstance(node, promql_parser.MatrixSelector):
            visit(node.vector_selector, function)
        elif isinstance(node, promql_parser.Call):
            for argument in node.args:
                visit(argument, node.func.name)
        elif isinstance(node, promql_parser.AggregateExpr):
            groups.update(node.modifier.labels if node.modifier else ())
            visit(node.expr)
        elif isinstance(node, promql_parser.BinaryExpr):
            visit(node.lhs)
            visit(node.rhs)
        else:
            assert isinstance(node, promql_parser.NumberLiteral), f"the tests can't read {type(node).__name__}"

    # Grafana fills in its own variable.
    visit(promql_parser.parse(expression.replace("$__rate_interval", "5m")))
    return metrics, groups


def metrics_of(prefix):
    """The names that all expressions together ask for, and that begin so."""
    return {one.name for text in EXPRESSIONS.values() for one in asked(text)[0] if one.name.startswith(prefix)}


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
def test_expressions_ask_for_what_is_documented(where):
    known = documented()
    metrics, groups = asked(EXPRESSIONS[where])
    assert metrics, "the expression asks for nothing"
    labels, only_ours = set(), True
    for one in metrics:
        assert "namespace" in one.labels, f"{one.name} of every namespace is meant"
        if one.name.startswith(("etcd_", "traefik_")):
            only_ours = False
            continue
        kind, own = known.get(base(one.name), known.get(one.name, (None, None)))
        assert kind, f"docs/metrics.md has no {one.name}"
        assert (kind == "histogram") == (one.name != base(one.name)), f"{one.name} is a {kind}"
        grows = one.function in ("rate", "increase")
        assert grows == (kind != "gauge"), f"{one.name} is a {kind}, and the function is {one.function}"
        assert one.labels <= own | TARGET_LABELS, f"{one.name} has no label {one.labels - own}"
        labels |= own
    assert not only_ours or groups <= labels | TARGET_LABELS, f"no metric has {groups - labels - TARGET_LABELS}"


def test_metrics_of_etcd_are_there(etcd_metrics):
    names = metrics_of("etcd_")
    assert len(names) >= 4
    for name in names:
        assert re.search(rf"^{name}\b", etcd_metrics, re.M), f"etcd has no {name}"


def test_metrics_of_traefik_are_there(traefik_metrics):
    names = metrics_of("traefik_")
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
    assert not gone & metrics_of("traefik_")


def test_expressions_are_read_as_prometheus_reads_them():
    text = 'sum by (pod, a) (rate(x_total{namespace="n",status=~"5.."}[$__rate_interval])) > 0 or max(other)'
    metrics, groups = asked(text)
    assert metrics == [Asked("x_total", {"namespace", "status"}, "rate"), Asked("other", set(), None)]
    assert groups == {"pod", "a"}
    for wrong in ("sum(rate(a[5m])", "rate(a)", "a{b=c}", "sum by pod (a)", "a[5m] > 0", "invented(a)"):
        with pytest.raises(ValueError):
            asked(wrong)


def test_alerts_can_be_acted_upon():
    for name, alert in alerts().items():
        assert name.startswith("Pointsman")
        for key in ("summary", "description"):
            assert alert["annotations"][key].endswith("."), f"{name}: {key} is no sentence"
        used = set(re.findall(r"\$labels\.(\w+)", str(alert["annotations"])))
        _, groups = asked(alert["expr"])
        aggregated = re.match(r"\s*(max|min|sum|count|absent)\b", alert["expr"])
        assert used <= (groups if aggregated else TARGET_LABELS), f"{name} uses labels that are aggregated away"


def test_what_docs_say_to_watch_is_watched():
    text = (ROOT / "docs" / "metrics.md").read_text().split("## What to watch")[1]
    to_watch = {base(name) for name in re.findall(r"(pointsman_[a-z_]+)", text)} - {"pointsman_not_ready"}
    watched = {base(one.name) for alert in alerts().values() for one in asked(alert["expr"])[0]}
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
