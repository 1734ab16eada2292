"""The form of the custom resources that the chart uses: what we write of them, and nothing else.

The operators' own definitions allow much more. What is closed here finds a misspelt or misplaced field.
"""

from jsonschema import Draft202012Validator

TEXT = {"type": "string", "minLength": 1}
TIME = {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"}
TEXTS = {"type": "array", "minItems": 1, "items": TEXT}
LABELS = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}}


def closed(required, **more):
    properties = {**required, **more}
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def several(items):
    return {"type": "array", "minItems": 1, "items": items}


SELECTOR = closed({"matchLabels": LABELS})
NAMESPACES = closed({"matchNames": TEXTS})
RELABELING = closed({"sourceLabels": TEXTS, "regex": TEXT, "action": {"enum": ["drop", "keep"]}})
ENDPOINT = closed({"port": TEXT}, interval=TIME, path=TEXT, metricRelabelings=several(RELABELING))
ALERT = closed(
    {
        "alert": {"type": "string", "pattern": "^[A-Z][A-Za-z]+$"},
        "expr": TEXT,
        "for": TIME,
        "labels": closed({"severity": {"enum": ["critical", "warning", "info"]}}),
        "annotations": closed({"summary": TEXT, "description": TEXT}),
    }
)
PARENT = closed({"name": TEXT}, namespace=TEXT, group=TEXT, kind=TEXT, sectionName=TEXT, port={"type": "integer"})
BACKEND = closed({"name": TEXT, "port": {"type": "integer", "minimum": 1, "maximum": 65535}})
# A duration of the Gateway API: hours, minutes, seconds and milliseconds; 0s means no limit.
LIMITS = closed({"request": {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}})

SCHEMAS = {
    "monitoring.coreos.com/v1 ServiceMonitor": closed(
        {"selector": SELECTOR, "endpoints": several(ENDPOINT)}, namespaceSelector=NAMESPACES
    ),
    "monitoring.coreos.com/v1 PodMonitor": closed(
        {"selector": SELECTOR, "podMetricsEndpoints": several(ENDPOINT)}, namespaceSelector=NAMESPACES
    ),
    "monitoring.coreos.com/v1 PrometheusRule": closed({"groups": several(closed({"name": TEXT, "rules": several(ALERT)}))}),
    "cert-manager.io/v1 Certificate": closed(
        {
            "secretName": TEXT,
            "dnsNames": TEXTS,
            "issuerRef": closed({"name": TEXT, "kind": {"enum": ["Issuer", "ClusterIssuer"]}, "group": TEXT}),
        }
    ),
    "gateway.networking.k8s.io/v1 HTTPRoute": closed(
        {"parentRefs": several(PARENT), "rules": several(closed({"backendRefs": several(BACKEND)}, timeouts=LIMITS))},
        hostnames=TEXTS,
    ),
}


def complaints_about(thing):
    """What is wrong with an object, if it is a custom resource."""
    name = f"{thing['apiVersion']} {thing['kind']}"
    if name not in SCHEMAS:
        return
    for error in Draft202012Validator(SCHEMAS[name]).iter_errors(thing.get("spec")):
        yield f"{thing['kind']} {thing['metadata']['name']}: {'.'.join(map(str, error.path))}: {error.message}"
