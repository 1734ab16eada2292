"""As whom the pods run: one user that isn't root."""

import pytest
from cases import CASES, rendered
from workloads import all_pods


@pytest.mark.parametrize("case", CASES)
def test_every_pod_names_its_user(case):
    """The images of etcd and Traefik name none, and as root they would not be started."""
    for pods in all_pods(rendered(case).everything):
        security = pods.spec["securityContext"]
        assert [security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")] == [65532] * 3, pods.name

