"""All faults. Each module adds its own to the list."""

import fault_etcd  # noqa: F401
import fault_links  # noqa: F401
import fault_outage  # noqa: F401
import fault_processes  # noqa: F401
from fault import REGISTRY, Fault, missing

__all__ = ["REGISTRY", "Fault", "missing"]
