"""The files in examples/ are right: accepted by the programs they are for, and consistent with one another."""

import json
import os
import re
import subprocess
from urllib.parse import urlsplit

import pytest
import yaml
from devkit.child import Child, wait_until
from devkit.one_machine import EXAMPLE
from devkit.parts import plain_environment, status_of
from devkit.places import EXAMPLES, ROOT, hub_python, program
from devkit.ports import free_port

TRAEFIK_VERSION = "3.7.15"


def run(command, environment=None):
    """Run a program to its end, with nothing of ours in its environment. Gives status, output, errors."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**plain_environment(), **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


# One machine


def test_the_one_line_that_a_hub_needs_is_the_readme_s_and_the_example_s_only_one():
    line = 'c.ConfigurableHTTPProxy.command = ["pointsman"]'
    settings = [each for each in EXAMPLE.read_text().splitlines() if each.startswith("c.")]
    assert [each for each in settings if "roxy" in each] == [line]
    assert line in (ROOT / "README.md").read_text().splitlines()


# By hand, with etcd


def test_the_traefik_example_is_what_pointsman_prints(binary):
    command = [binary, "traefik-config", "--config", "examples/pointsman.toml", "--traefik-version", TRAEFIK_VERSION]
    done = subprocess.run(command, cwd=ROOT, env=plain_environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    example = (EXAMPLES / "traefik" / "traefik.yaml").read_text()
    assert done.stdout == example, "print it anew: " + " ".join(map(str, ["pointsman", *command[1:]]))


@pytest.mark.parametrize("world", [6], ids=["hub6"], indirect=True)
def test_a_traefik_with_the_example_serves_the_routes(hub, tmp_path):
    """The example itself, with other ports, beside the Traefiks that were started with a folder."""
    text = (EXAMPLES / "traefik" / "traefik.yaml").read_text()
    public, private = free_port(), free_port()
    for old, new in ((8000, public), (8099, private), (2379, hub.stack.etcd_port)):
        assert f":{old}" in text, f"the example doesn't name port {old}"
        text = text.replace(f":{old}", f":{new}")
    config = tmp_path / "traefik.yaml"
    config.write_text(text)
    child = Child(
        "traefik", [program("traefik"), "--configFile", config], tmp_path / "log", env=plain_environment()
    ).start()
    try:
        wait_until("it serves the hub", lambda: status_of(f"http://127.0.0.1:{public}/hub/api")[0] == 200, 20, [child])
        assert "error" not in child.tail(100).lower(), child.tail(100)
    finally:
        child.stop()


@pytest.mark.parametrize("world", [6], ids=["hub6"], indirect=True)
def test_check_is_content_with_the_running_example_and_names_what_is_wrong(hub):
    command = hub.stack.pointsman_command("check")
    status, out, err = run(command, hub.stack.settings())
    assert status == 0, out + err
    wrong = {**hub.stack.settings(), "POINTSMAN_ETCD_ENDPOINTS": "http://127.0.0.1:1"}
    status, out, err = run(command, wrong)
    assert status != 0
    assert "etcd" in out + err and "127.0.0.1:1" in out + err


def test_the_readme_names_no_flag_that_is_not_there(binary):
    text = (EXAMPLES / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("pointsman ")]
    assert len(lines) >= 2
    for line in lines:
        words = line.split()[1:]
        subcommand = [words[0]] if not words[0].startswith("-") else []
        _, shown, _ = run([binary, *subcommand, "--help"])
        for flag in re.findall(r"--[a-z-]+", line):
            assert f"{flag} " in shown or f"{flag}[" in shown, f"{flag} in {line!r}"
    for named in re.findall(r"examples/([\w./-]+)", text):
        assert (EXAMPLES / named).exists(), named


# In containers


@pytest.fixture(scope="module")
def compose():
    """The services of the compose file, their variables with a token filled in."""
    whole = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())
    for service in whole["services"].values():
        for name, value in service.get("environment", {}).items():
            service["environment"][name] = re.sub(
                r"\$\{CONFIGPROXY_AUTH_TOKEN:\?[^}]*\}", "a-token-for-the-test", str(value)
            )
    return whole


def place(url):
    """The service and port that a URL leads to."""
    parts = urlsplit(url)
    return parts.hostname, parts.port


def mounts(service):
    """What a service sees where."""
    return dict(reversed(volume.split(":")[:2]) for volume in service.get("volumes", []))


def option(words, name):
    """The value of an option, as `--name value` or `--name=value`."""
    for index, word in enumerate(words):
        if word == name:
            return words[index + 1]
        if word.startswith(name + "="):
            return word.partition("=")[2]
    raise AssertionError(f"{name} is not in {words}")


def test_the_compose_file_is_whole(compose):
    services = compose["services"]
    assert set(services) == {"etcd", "traefik-config", "traefik", "pointsman", "hub"}
    for name, service in services.items():
        assert "image" in service or "build" in service, name
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, f"{name} waits for {needed}"
            assert how["condition"] in ("service_started", "service_healthy", "service_completed_successfully")
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], f"{name} waits for the health of {needed}, which has no check"
        for source in mounts(service).values():
            if source.startswith("."):
                assert (EXAMPLES / source).exists(), source
            else:
                assert source in compose["volumes"], f"{name} uses the volume {source}"
    images = {name: service.get("image", "").rpartition(":")[0] for name, service in services.items()}
    assert images["etcd"] == "quay.io/coreos/etcd" and images["traefik"] == "traefik"
    assert services["traefik"]["image"] == f"traefik:v{TRAEFIK_VERSION}"
    assert "FROM quay.io/jupyterhub/jupyterhub:6" in services["hub"]["build"]["dockerfile_inline"]
    assert (EXAMPLES / services["pointsman"]["build"] / "Dockerfile").exists()
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"traefik": ["8000:8000"]}, "only users' traffic may be reached from outside"


def test_the_compose_file_s_settings_fit_together(compose, binary):
    services = compose["services"]
    settings = services["pointsman"]["environment"]
    assert services["traefik-config"]["environment"] == settings
    words = services["traefik-config"]["command"]
    folder = option(words, "--dir")
    without_folder = [word for word in words if word not in ("--dir", folder)]
    status, printed, errors = run([binary, *without_folder], settings)
    assert status == 0, errors
    static = yaml.safe_load(printed)
    # Traefik reads what traefik-config wrote, where it was written.
    assert option(services["traefik"]["command"], "--configFile") == f"{folder}/traefik.yaml"
    assert mounts(services["traefik"])[folder] == mounts(services["traefik-config"])[folder]
    # Users reach the entry point; Pointsman reaches Traefik's API, etcd and the hub, and is reached.
    assert static["entryPoints"]["web"]["address"].endswith(":8000")
    assert place(settings["POINTSMAN_TRAEFIK_API"]) == (
        "traefik",
        int(static["entryPoints"]["traefik"]["address"].rpartition(":")[2]),
    )
    listens = option(services["etcd"]["command"], "--listen-client-urls")
    assert place(settings["POINTSMAN_ETCD_ENDPOINTS"]) == ("etcd", urlsplit(listens).port)
    assert static["providers"]["etcd"]["endpoints"] == ["etcd:2379"]
    hub = services["hub"]["environment"]
    assert place(hub["PROXY_API_URL"]) == ("pointsman", int(settings["POINTSMAN_API_PORT"]))
    assert place(settings["POINTSMAN_PAGES_URL"]) == ("pointsman", int(settings["POINTSMAN_PAGES_PORT"]))
    assert place(settings["POINTSMAN_ERROR_TARGET"]) == ("hub", int(hub["HUB_PORT"])) == place(hub["HUB_CONNECT_URL"])
    assert hub["CONFIGPROXY_AUTH_TOKEN"] == settings["CONFIGPROXY_AUTH_TOKEN"]
    assert settings["POINTSMAN_API_IP"] == settings["POINTSMAN_PAGES_IP"] == "*"
    assert urlsplit(hub["PUBLIC_URL"]).port == int(services["traefik"]["ports"][0].partition(":")[0])


def test_etcd_knows_the_flags_of_the_compose_file(compose):
    _, out, err = run([program("etcd"), "--help"])
    for word in compose["services"]["etcd"]["command"][1:]:
        assert word.partition("=")[0] in out + err


def test_the_hub_takes_the_variables_of_the_compose_file(compose, tmp_path):
    variables = compose["services"]["hub"]["environment"]
    source = (EXAMPLES / "jupyterhub_config.py").read_text()
    known = set(re.findall(r'environ(?:\.get\(|\[)"(\w+)"', source)) | {"CONFIGPROXY_AUTH_TOKEN"}
    assert set(variables) <= known, f"the hub's configuration doesn't read {set(variables) - known}"
    code = (
        "import json, sys; from traitlets.config import PyFileConfigLoader; "
        "print(json.dumps(PyFileConfigLoader(sys.argv[1]).load_config(), default=str))"
    )
    status, out, errors = run([hub_python(6), "-c", code, EXAMPLES / "jupyterhub_config.py"], variables)
    assert status == 0, errors
    config = json.loads(out)
    assert config["ConfigurableHTTPProxy"] == {"should_start": False, "api_url": "http://pointsman:8001"}
    assert config["JupyterHub"]["hub_ip"] == "0.0.0.0" and config["JupyterHub"]["hub_port"] == 8081
    assert config["Spawner"]["ip"] == "hub"
    assert os.path.basename(option(compose["services"]["hub"]["command"], "-f")) == "jupyterhub_config.py"
