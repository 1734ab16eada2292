"""As whom the pods run: one user that isn't root, or on OpenShift whoever the namespace has."""

import pytest
from cases import CASES, rendered
from engine import render
from workloads import all_pods

OPENSHIFT = {"runAs.user": None, "runAs.group": None, "runAs.fsGroup": None}


@pytest.mark.parametrize("case", CASES)
def test_every_pod_names_its_user(case):
    """The images of etcd and Traefik name none, and as root they would not be started."""
    for pods in all_pods(rendered(case).everything):
        security = pods.spec["securityContext"]
        assert [security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")] == [65532] * 3, pods.name


def test_openshift_chooses():
    for pods in all_pods(render(sets=OPENSHIFT).everything):
        for security in [pods.spec["securityContext"]] + [c.get("securityContext", {}) for c in pods.containers]:
            assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(security), pods.name
            assert security.get("runAsNonRoot", True)
