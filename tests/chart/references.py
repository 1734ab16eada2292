"""What points at something else must find it."""

import re

from workloads import all_pods, matches, meant, named, of_kind, secrets_and_maps


def outside(things):
    """The Secrets and ConfigMaps that pods need and the chart doesn't make."""
    made = {(thing["kind"], thing["metadata"]["name"]) for thing in of_kind(things, "Secret", "ConfigMap")}
    made |= {("Secret", thing["spec"]["secretName"]) for thing in of_kind(things, "Certificate")}
    return {pair for pods in all_pods(things) for pair in secrets_and_maps(pods)} - made


def inside(things):
    """Volumes, variables and ports within a pod; the ports of Services, monitors and entries."""
    services = {thing["metadata"]["name"]: thing for thing in of_kind(things, "Service")}
    yield from within_pods(things)
    yield from keys(things)
    for service in services.values():
        yield from ports_of(things, service, [port["targetPort"] for port in service["spec"]["ports"]])
    for monitor in of_kind(things, "PodMonitor"):
        yield from ports_of(things, monitor, [given["port"] for given in monitor["spec"]["podMetricsEndpoints"]])
    for monitor in of_kind(things, "ServiceMonitor"):
        found = [s for s in services.values() if matches(monitor["spec"]["selector"], s["metadata"]["labels"])]
        if len(found) != 1:
            yield f"{named(monitor)} means {len(found)} Services"
        for given in monitor["spec"]["endpoints"]:
            if not any(given["port"] == port["name"] for service in found for port in service["spec"]["ports"]):
                yield f"{named(monitor)}: no Service has port {given['port']}"
    for thing in of_kind(things, "StatefulSet"):
        service = services.get(thing["spec"]["serviceName"])
        if service is None or service["spec"].get("clusterIP") != "None":
            yield f"{named(thing)}: {thing['spec']['serviceName']} is no headless Service"
        elif meant(things, service)[0].owner is not thing:
            yield f"{named(thing)}: its Service leads elsewhere"
    for scaler in of_kind(things, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        if not any(named(thing) == f"{target['kind']} {target['name']}" for thing in things):
            yield f"{named(scaler)} scales nothing"
    yield from entries(things, services)
    yield from policy_ports(things)


def keys(things):
    """The keys that pods read in Secrets and ConfigMaps of the chart."""
    made = {
        thing["metadata"]["name"]: {**thing.get("data", {}), **thing.get("stringData", {})}
        for thing in of_kind(things, "Secret", "ConfigMap")
    }
    for pods in all_pods(things):
        for variable in (v for container in pods.containers for v in container.get("env", [])):
            source = variable.get("valueFrom", {})
            wanted = source.get("secretKeyRef") or source.get("configMapKeyRef")
            if wanted and wanted["name"] in made and wanted["key"] not in made[wanted["name"]]:
                yield f"{pods.name}: {wanted['name']} has no key {wanted['key']}"


def within_pods(things):
    for pods in all_pods(things):
        claims = pods.owner["spec"].get("volumeClaimTemplates", [])
        volumes = {v["name"] for v in pods.spec.get("volumes", [])} | {c["metadata"]["name"] for c in claims}
        mounted = set()
        for container in pods.containers:
            where = f"{pods.name}, {container['name']}"
            mounts = container.get("volumeMounts", [])
            mounted |= {mount["name"] for mount in mounts}
            for name in {mount["name"] for mount in mounts} - volumes:
                yield f"{where} mounts {name}, which isn't there"
            if len({mount["mountPath"] for mount in mounts}) != len(mounts):
                yield f"{where} mounts two volumes at one place"
            names = [variable["name"] for variable in container.get("env", [])]
            for name in {name for name in names if names.count(name) > 1}:
                yield f"{where} has the variable {name} twice"
            for word in container.get("command", []) + container.get("args", []):
                for name in re.findall(r"\$\(([A-Za-z0-9_]+)\)", word):
                    if name not in names:
                        yield f"{where} uses $({name}), which isn't set"
        for name in volumes - mounted:
            yield f"{pods.name}: nobody mounts {name}"
        numbers = [port["containerPort"] for c in pods.containers for port in c.get("ports", [])]
        if len(numbers) != len(set(numbers)):
            yield f"{pods.name}: two containers have the same port"


def ports_of(things, thing, ports):
    for pods in meant(things, thing):
        for port in ports:
            if port not in pods.ports:
                yield f"{named(thing)} leads to port {port}, which {pods.name} has not"


def entries(things, services):
    """Ingress and HTTPRoute lead to ports of Services."""
    wanted = []
    for thing in of_kind(things, "Ingress"):
        for rule in thing["spec"]["rules"]:
            wanted += [(thing, p["backend"]["service"]) for p in rule["http"]["paths"]]
    for thing in of_kind(things, "HTTPRoute"):
        wanted += [(thing, b) for rule in thing["spec"]["rules"] for b in rule["backendRefs"]]
    for thing, backend in wanted:
        service = services.get(backend["name"])
        port = backend["port"]
        port = port.get("name", port.get("number")) if isinstance(port, dict) else port
        if service is None or not any(port in (p["name"], p["port"]) for p in service["spec"]["ports"]):
            yield f"{named(thing)} leads to {backend['name']}:{port}, which isn't there"


def policy_ports(things):
    """A named port in a rule that no pod has lets nothing through, without a word."""
    everywhere = {name for pods in all_pods(things) for name in pods.ports}
    for policy in of_kind(things, "NetworkPolicy"):
        own = {name for pods in meant(things, policy) for name in pods.ports}
        for way, known in (("ingress", own), ("egress", everywhere)):
            for rule in policy["spec"].get(way) or []:
                named_ports = {p["port"] for p in rule.get("ports") or [] if isinstance(p["port"], str)}
                # The port for https is there with TLS only.
                for port in named_ports - known - {"https"}:
                    yield f"{named(policy)} speaks of port {port}, which no pod has"
