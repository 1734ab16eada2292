"""Traefik's pod: what stands beside it, how it ends, as whom it runs; and the pod of `helm test`."""

import re

import pytest
from cases import values_file
from engine import refusal, render
from workloads import all_pods

SECRET = {"tls.mode": "secret", "tls.secretName": "hub-tls"}
ONE = {"etcd.enabled": False, "etcd.external.endpoints": ["http://etcd:2379"]}
PLAIN = {"etcd.enabled": False, "etcd.external.endpoints": ["http://a:2379", "http://b:2379"]}
SECURE = {"etcd.enabled": False, "etcd.external.endpoints": ["https://a:2379", "https://b:2379"]}
PIECE = "traefik.etcdRelay.{}".format


def pod_of(sets=None):
    things = render(sets=sets or {})
    return things, things.one("Deployment", "pointsman-traefik")["spec"]["template"]["spec"]


def container(pod, name):
    """The container, or None."""
    return next((one for one in pod["initContainers"] + pod["containers"] if one["name"] == name), None)


@pytest.mark.parametrize(
    ("sets", "stands"),
    [
        ({}, True),
        ({"etcd.replicas": 1}, False),
        ({PIECE("enabled"): False}, False),
        (ONE, False),
        (PLAIN, True),
        # Certificates for 127.0.0.1 are rare, so nobody gets it who doesn't say that he has them.
        (SECURE, False),
        ({**SECURE, PIECE("throughTLS"): True}, True),
    ],
    ids=str,
)
def test_a_relay_stands_beside_traefik_where_it_helps(sets, stands):
    _, pod = pod_of(sets)
    relay, configuration = container(pod, "etcd-relay"), container(pod, "configuration")
    assert bool(relay) == stands
    assert ("--etcd-relay=127.0.0.1:2379" in configuration["args"]) == stands
    if relay:
        # Kubernetes starts such a container before Traefik, and ends it after Traefik has drained.
        assert relay["restartPolicy"] == "Always"
        assert "--listen=127.0.0.1:2379" in relay["args"]


def test_a_secret_is_followed_by_a_container_and_traefik_sees_only_copies():
    _, pod = pod_of(SECRET)
    assert [one["name"] for one in pod["initContainers"]] == ["configuration", "certificates", "etcd-relay", "connections"]
    first, follower, traefik = (container(pod, name) for name in ("configuration", "certificates", "traefik"))
    assert follower["restartPolicy"] == "Always" and "--certificates=followed" in follower["args"]
    # They write the same, but for that one word.
    assert [word.replace("followed", "copied") for word in follower["args"]] == first["args"]
    assert (follower["env"], follower["volumeMounts"]) == (first["env"], first["volumeMounts"])
    assert [mount["name"] for mount in traefik["volumeMounts"]] == ["traefik"]
    assert not container(pod_of()[1], "certificates")


def test_whoever_is_told_of_a_file_has_it():
    """A setting that names a file of a mounted folder, where the folder isn't mounted, keeps a pod from starting."""
    things = render(values_file("traefik"))
    for pods in all_pods(things.everything):
        for one in pods.containers:
            words = [*one.get("args", []), *(variable.get("value", "") for variable in one.get("env", []))]
            named = {found for word in words for found in re.findall(r"(?:^|=)(/(?:tls|etcd-tls|etcd-login|own-files))\b", word)}
            missing = named - {mount["mountPath"] for mount in one.get("volumeMounts", [])}
            assert not missing, f"{pods.name}, {one['name']}: {missing}"
    keys = [mount for mount in things.one("Deployment", "pointsman")["spec"]["template"]["spec"]["volumes"] if mount["name"] == "tls"]
    assert not keys, "Pointsman has no use for the key of the users' certificate"


def test_a_pod_is_given_the_time_that_it_takes_to_end():
    _, pod = pod_of({"traefik.acceptSeconds": 7, "traefik.drainSeconds": 100})
    assert {"--accept-seconds=7", "--grace-seconds=100"} <= set(container(pod, "configuration")["args"])
    assert pod["terminationGracePeriodSeconds"] == 7 + 100 + 10


def test_a_request_has_as_long_as_the_site_says():
    _, pod = pod_of({"traefik.requestSeconds": 90})
    assert {"name": "POINTSMAN_REQUEST_TIMEOUT", "value": "90000"} in container(pod, "configuration")["env"]


def test_the_probe_takes_it_out_before_changes_go_on_without_it():
    _, pod = pod_of()
    probe = container(pod, "traefik")["readinessProbe"]
    assert (probe["periodSeconds"], probe["failureThreshold"]) == (1, 2) and probe["timeoutSeconds"] <= 2
    assert probe["httpGet"]["path"] == "/_chp_healthz"


def test_files_of_the_site_are_given_to_traefik_and_a_change_rolls_the_pods():
    files = {"a.yaml": "http: {middlewares: {a: {compress: {}}}}", "b.yml": {"http": {"middlewares": {}}}, "c.toml": "[http]"}
    things = render({"traefik": {"dynamicFiles": files}})
    given = things.one("Secret", "pointsman-traefik-files")["stringData"]
    assert given["a.yaml"].strip() == files["a.yaml"] and given["c.toml"].strip() == "[http]"
    assert given["b.yml"].split() == ["http:", "middlewares:", "{}"]
    template = things.one("Deployment", "pointsman-traefik")["spec"]["template"]
    assert "--add-files=/own-files" in container(template["spec"], "configuration")["args"]
    other = render({"traefik": {"dynamicFiles": {**files, "c.toml": "[tls]"}}})
    other = other.one("Deployment", "pointsman-traefik")["spec"]["template"]
    key = "checksum/settings"
    assert template["metadata"]["annotations"][key] != other["metadata"]["annotations"][key]


def test_a_file_that_traefik_could_not_read_is_refused():
    said = refusal({"traefik": {"dynamicFiles": {"a.yaml": "http: [middlewares"}}})
    assert "traefik.dynamicFiles has a.yaml, which is no YAML" in said
    for name in ("pointsman.yaml", "notes.txt", "a/b.yaml", ".a.yaml"):
        assert "dynamicFiles" in refusal({"traefik": {"dynamicFiles": {name: "http: {}"}}})


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({}, {"--users-at=http://pointsman-traefik-pods.jhub.svc:8000"}),
        (SECRET, {"--users-at=https://pointsman-traefik-pods.jhub.svc:8443"}),
        ({"hub.hostRouting": True, "tests.host": "hub.example.org"}, {"--host-routing", "--host=hub.example.org"}),
    ],
    ids=str,
)
def test_helm_test_asks_every_traefik_as_a_user_does(sets, words):
    things = render(sets=sets)
    pod = things.one("Pod", "pointsman-try-route")
    assert pod in things.hooks and pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    assert words | {"try-route", "--api=http://pointsman-api.jhub.svc:8001", "--listen=:8004"} <= set(container["args"])
    assert [port["containerPort"] for port in container["ports"]] == [8004]
    # It removes its route before it is killed.
    assert pod["spec"]["terminationGracePeriodSeconds"] >= 60


def test_without_tests_nothing_of_them_is_there():
    things = render(sets={"tests.enabled": False})
    assert not things.hooks
    assert "'app.kubernetes.io/component': 'test'" not in str(things.everything)
