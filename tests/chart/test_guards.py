"""Values that contradict each other are refused, with a sentence that names the value and what to do."""

import re
from functools import cache

import pytest
from engine import CHART, refusal, render
from policies import rollout

EXTERNAL = {"etcd.enabled": False, "etcd.external.endpoints": ["https://etcd-0:2379", "https://etcd-1:2379"]}
PLAIN = {"etcd.enabled": False, "etcd.external.endpoints": ["http://etcd:2379"]}
OWN = {
    "traefik.enabled": False,
    "traefik.api": ["dns://traefik-pods.proxies.svc:8099"],
    "networkPolicy.traefikPeers": [{"podSelector": {"matchLabels": {"app": "traefik"}}}],
}
SECRET = {"tls.mode": "secret", "tls.secretName": "hub-tls"}

# What is given, and the sentence's first words.
GUARDS = [
    ({"auth.existingSecret.name": ""}, "auth.existingSecret needs name and key, or give auth.token"),
    ({"auth.existingSecret.key": ""}, "auth.existingSecret needs name and key, or give auth.token"),
    ({"etcd.replicas": 2}, "etcd.replicas is 2: an etcd cluster has 1, 3 or 5 members"),
    ({"etcd.replicas": 4}, "etcd.replicas is 4: an etcd cluster has 1, 3 or 5 members"),
    ({"etcd.extraConfig": {"name": "x"}}, "etcd.extraConfig.name is the chart's to say; remove it"),
    ({"etcd.external.endpoints": ["https://e:2379"]}, "etcd.enabled is true and etcd.external.endpoints are given"),
    ({"etcd.external.tls.existingSecret": "a"}, "etcd.external.tls and etcd.external.auth are for an etcd of your own"),
    ({"etcd.enabled": False}, "etcd.enabled is false and etcd.external.endpoints is empty"),
    ({**PLAIN, "etcd.external.endpoints": ["http://etcd"]}, 'etcd.external.endpoints has "http://etcd"'),
    ({**PLAIN, "etcd.external.endpoints": ["etcd:2379"]}, 'etcd.external.endpoints has "etcd:2379"'),
    ({**PLAIN, "etcd.external.endpoints": ["http://a:2379", "https://b:2379"]}, "etcd.external.endpoints has http and https"),
    ({**PLAIN, "etcd.external.tls.existingSecret": "a"}, "etcd.external.tls names a Secret and etcd.external.endpoints begin"),
    ({**EXTERNAL, "etcd.external.tls.clientCertificate": True}, "etcd.external.tls.existingSecret is empty"),
    ({**EXTERNAL, "etcd.external.tls.traefikExistingSecret": "a"}, "etcd.external.tls.existingSecret is empty"),
    ({**EXTERNAL, "etcd.external.auth.traefikExistingSecret": "a"}, "etcd.external.auth.existingSecret is empty"),
    ({"etcd.prefix": "traefik"}, 'etcd.prefix "traefik" and etcd.rootKey "traefik" begin with one another'),
    ({"etcd.prefix": "traefik-too"}, 'etcd.prefix "traefik-too" and etcd.rootKey "traefik" begin with one another'),
    ({"etcd.rootKey": "pointsman/t"}, 'etcd.prefix "pointsman" and etcd.rootKey "pointsman/t" begin with one another'),
    ({"tls.mode": "acme"}, "tls.mode is acme: Traefik keeps what it gets by ACME in a file of one pod"),
    ({"tls.mode": "letsencrypt"}, "tls.mode is letsencrypt: Traefik keeps"),
    ({"tls.mode": "secret"}, "tls.mode is secret and tls.secretName is empty"),
    ({**SECRET, "tls.certManager.enabled": True}, "tls.certManager.enabled needs tls.mode secret"),
    ({"tls.certManager.enabled": True, "tls.certManager.dnsNames": ["a"]}, "tls.certManager.enabled needs tls.mode secret"),
    ({"httpRoute.enabled": True}, "httpRoute.enabled needs httpRoute.parentRefs"),
    ({**SECRET, "ingress.enabled": True}, "ingress and httpRoute end TLS and come to Traefik by http"),
    ({"z2jh.adopt": True}, "z2jh.adopt lets users in by z2jh's own Service proxy-public"),
    ({"traefik.api": ["dns://t:8099"]}, "traefik.api and networkPolicy.traefikPeers are for Traefiks of your own"),
    ({"traefik.enabled": False}, "traefik.enabled is false and traefik.api is empty"),
    ({"traefik.enabled": False, "traefik.api": ["dns://t:8099"]}, "traefik.enabled is false and networkPolicy.traefikPeers is empty"),
    ({**OWN, "ingress.enabled": True}, "ingress and httpRoute lead to the chart's Traefik"),
    ({**OWN, "z2jh.adopt": True, "traefik.service.type": "ClusterIP"}, "z2jh.adopt leads z2jh's proxy-public to the chart's Traefik"),
    ({"traefik.service.type": "ClusterIP", "traefik.service.nodePort": 30080}, "traefik.service.type is ClusterIP"),
    (
        {"traefik.service.type": "ClusterIP", "traefik.service.externalTrafficPolicy": "Local"},
        "traefik.service.type is ClusterIP",
    ),
    (
        {"traefik.autoscaling": {"enabled": True, "minReplicas": 20}},
        "traefik.autoscaling.minReplicas is 20 and maxReplicas is 10",
    ),
    (
        {"pointsman.autoscaling": {"enabled": True, "minReplicas": 6}},
        "pointsman.autoscaling.minReplicas is 6 and maxReplicas is 5",
    ),
    (
        {"pointsman.autoscaling.enabled": True, "pointsman.resources.requests": None},
        "pointsman.autoscaling.enabled needs pointsman.resources.requests.cpu",
    ),
    ({"pointsman.pdb.maxUnavailable": 0}, "pointsman.pdb.maxUnavailable is 0: no node"),
    ({"traefik.pdb.maxUnavailable": "0%"}, "traefik.pdb.maxUnavailable is 0%: no node"),
    ({"pointsman.terminationGracePeriodSeconds": 8}, "pointsman.terminationGracePeriodSeconds is 8: open calls"),
    ({"pointsman.laggard.graceSeconds": 5}, "pointsman.laggard.graceSeconds is 5: the probe needs 6 s"),
    ({"traefik.image.tag": "latest"}, 'traefik.image.tag is "latest", which names no release'),
    ({"metrics.enabled": False, "metrics.serviceMonitor.enabled": True}, "metrics.enabled is false"),
    ({"metrics.enabled": False, "metrics.dashboard.enabled": True}, "metrics.enabled is false"),
    ({"metrics.podMonitor.enabled": True}, "metrics.podMonitor.enabled needs networkPolicy.metricsFrom"),
]

# What is there, what is given, and the sentence's first words.
UPGRADES = [
    ({"replicas": 1}, {}, "etcd has 1 members and etcd.replicas is 3"),
    ({"replicas": 3}, {"etcd.replicas": 5}, "etcd has 3 members and etcd.replicas is 5"),
    ({}, {"etcd.persistence.enabled": False}, "etcd.persistence.enabled is false, and etcd was installed the other way"),
    ({"volumeClaimTemplates": []}, {}, "etcd.persistence.enabled is true, and etcd was installed the other way"),
    ({}, {"etcd.persistence.size": "2Gi"}, "etcd.persistence.size is 2Gi and the volumes have 1Gi"),
    ({}, {"etcd.persistence.storageClass": "fast"}, 'etcd.persistence.storageClass is "fast" and the volumes have ""'),
]


def there(**changes):
    """The StatefulSet of the default values as the cluster has it."""
    (found,) = render().of_kind("StatefulSet")
    return {**found, "spec": {**found["spec"], **changes}}


@cache
def refused(number):
    return refusal(sets=GUARDS[number][0])


@cache
def upgrade_refused(number):
    changes, sets, _ = UPGRADES[number]
    return refusal(sets=sets, existing=[there(**changes)], upgrade_from=render())


@pytest.mark.parametrize("number", range(len(GUARDS)), ids=[sentence[:60] for _, sentence in GUARDS])
def test_a_contradiction_is_refused(number):
    assert GUARDS[number][-1] in refused(number)


@pytest.mark.parametrize("number", range(len(UPGRADES)), ids=[sentence[:60] for *_, sentence in UPGRADES])
def test_an_upgrade_that_kubernetes_would_refuse_is_refused_before(number):
    assert UPGRADES[number][-1] in upgrade_refused(number)


def test_what_is_there_and_stays_is_no_reason():
    render(existing=[there()], upgrade_from=render())
    # On a first install nothing of ours is there.
    render(sets={"etcd.replicas": 5})


@pytest.mark.parametrize(
    "sets",
    [
        {**EXTERNAL, "etcd.external.tls": {"existingSecret": "a", "clientCertificate": True, "traefikExistingSecret": "b"}},
        {**PLAIN, "etcd.external.auth": {"existingSecret": "a", "traefikExistingSecret": "b"}},
        {**SECRET, "tls.redirect": False, "ingress.enabled": True},
        {"traefik.image.tag": "edge", "traefik.version": "3.7.15"},
        {"pointsman.pdb": {"enabled": False, "maxUnavailable": 0}},
        {"pointsman.pdb.maxUnavailable": "10%"},
        {"traefik.service": {"type": "NodePort", "nodePort": 30080}},
        {"metrics.podMonitor.enabled": True, "networkPolicy.enabled": False},
        {"pointsman.laggard.graceSeconds": 6, "pointsman.terminationGracePeriodSeconds": 12},
    ],
    ids=str,
)
def test_what_goes_together_is_taken(sets):
    render(sets=sets)


def test_the_least_grace_is_what_traefiks_probe_needs():
    """docs/traefiks.md: 2 s until it is withdrawn, then as many probes as it takes, and the wait for the last."""
    spec = render().one("Deployment", "pointsman-traefik")["spec"]["template"]["spec"]
    probe = next(c for c in spec["containers"] if c["name"] == "traefik")["readinessProbe"]
    needed = 2 + probe["periodSeconds"] * probe["failureThreshold"] + probe.get("timeoutSeconds", 1)
    assert needed == 6
    assert "the probe needs 6 s" in refusal(sets={"pointsman.laggard.graceSeconds": needed - 1})


@pytest.mark.parametrize(("drain", "accept"), [(1, 0), (30, 5), (3600, 60)])
def test_a_drain_always_ends_before_the_kill(drain, accept):
    things = render(sets={"traefik.drainSeconds": drain, "traefik.acceptSeconds": accept}).objects
    assert list(rollout(things)) == []


def test_every_guard_is_tried():
    text = (CHART / "templates" / "guards.yaml").read_text()
    sentences = re.findall(r'{{- fail (?:\(printf )?"((?:[^"\\]|\\.)*)"', text)
    assert len(sentences) == text.count("{{- fail ") > 20
    said = [refused(number) for number in range(len(GUARDS))] + [upgrade_refused(number) for number in range(len(UPGRADES))]
    for sentence in sentences:
        form = ".+".join(re.escape(part) for part in re.split(r"%[vqs]", sentence))
        assert any(re.search(form, words) for words in said), f"no test gives: {sentence}"
