"""What each setting of `PointsmanProxy` becomes, in the hubs of today."""

import ast
import sys

import pytest
from conftest import ROOT, STAND_IN

# What the hub itself adds, always last, so that it wins.
HUBS_OWN = [
    *("--ip", "", "--port", "2", "--api-ip", "127.0.0.1", "--api-port", "1"),
    *("--error-target", "http://127.0.0.1:8081/hub/error", "--log-level", "info"),
]

SETTINGS = {
    "data_dir": ("pointsman-data", ["--data-dir", "pointsman-data"]),
    "traefik_binary": ("/opt/traefik", ["--traefik-binary", "/opt/traefik"]),
    "config_file": ("/etc/pointsman.toml", ["--config", "/etc/pointsman.toml"]),
    "redirect_port": (80, ["--redirect-port", "80"]),
    "metrics_port": (9100, ["--metrics-port", "9100"]),
    "metrics_ip": ("127.0.0.1", ["--metrics-ip", "127.0.0.1"]),
    "trusted_ips": (["10.0.0.0/8", "fd00::/8"], ["--trusted-ips", "10.0.0.0/8", "--trusted-ips", "fd00::/8"]),
    "proxy_protocol_ips": (["10.0.0.7"], ["--proxy-protocol-ips", "10.0.0.7"]),
    "middlewares": (["a@file", "b@file"], ["--middlewares", "a@file", "--middlewares", "b@file"]),
    "access_log": ("/var/log/a b.log", ["--access-log", "/var/log/a b.log"]),
    "log_format": ("json", ["--log-format", "json"]),
    "etcd_endpoints": (["http://a:2379", "http://b:2379"], ["--etcd-endpoints", "http://a:2379", "--etcd-endpoints", "http://b:2379"]),
    "traefik_api": (["dns://traefik:8099"], ["--traefik-api", "dns://traefik:8099"]),
    "pages_url": ("http://10.0.0.4:8002", ["--pages-url", "http://10.0.0.4:8002"]),
    "strict_versions": (True, ["--strict-versions"]),
    "extra_args": (["--custom-header", "X: y"], ["--custom-header", "X: y"]),
}  # fmt: skip


def test_the_package_is_imported_without_a_hub(hub_side):
    answer = hub_side.start()
    assert answer["needs_hub"] is False
    assert answer["package"] == str(ROOT / "python/pointsman/__init__.py")


def test_only_the_proxy_module_names_the_hub():
    for file in (ROOT / "python").rglob("*.py"):
        imported = [
            name
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module])
        ]
        hubs = [name for name in imported if name.startswith(("jupyterhub", "traitlets"))]
        assert file.name == "proxy.py" or not hubs, f"{file} imports {hubs}"


def test_without_settings_only_the_hubs_own_arguments(hub_side):
    answer = hub_side.start()
    assert answer["words"] == HUBS_OWN
    assert answer["error"] == "Proxy failed to start with exit code 3"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_becomes_its_flag_before_those_of_the_hub(hub_side, name):
    value, words = SETTINGS[name]
    assert hub_side.start({name: value})["words"] == [*words, *HUBS_OWN]


def test_settings_that_are_empty_become_nothing(hub_side):
    empty = {name: None if type(value) is int else type(value)() for name, (value, _) in SETTINGS.items()}
    assert hub_side.start(empty)["words"] == HUBS_OWN


def test_all_settings_together_and_extra_arguments_after_them(hub_side):
    answer = hub_side.start({name: value for name, (value, _) in SETTINGS.items()})
    extra = SETTINGS["extra_args"][1]
    ours = sorted(name for name in SETTINGS if name != "extra_args")
    assert answer["words"] == [word for name in ours for word in SETTINGS[name][1]] + extra + HUBS_OWN


def test_every_setting_of_the_class_is_in_the_table_above():
    source = ast.parse((ROOT / "python/pointsman/proxy.py").read_text())
    body = next(node for node in source.body if isinstance(node, ast.ClassDef)).body
    names = {node.targets[0].id for node in body if isinstance(node, ast.Assign)}
    assert names == {*SETTINGS, "command"}


def test_inherited_settings_work_under_both_names(hub_side):
    changed = {"api_url": "http://127.0.0.1:9001", "auth_token": "secret", "log_level": "debug"}
    for answer in (hub_side.start(changed), hub_side.start(parents=changed)):
        assert answer["token"] == answer["auth_token"] == "secret"
        assert answer["words"][4:8] == ["--api-ip", "127.0.0.1", "--api-port", "9001"]
        assert answer["words"][-2:] == ["--log-level", "debug"]


def test_a_second_start_gives_the_flags_once(hub_side):
    # The hub starts a proxy that ended again with the same object.
    answer = hub_side.start({"strict_versions": True})
    assert answer["words"].count("--strict-versions") == 1
    assert answer["command"] == STAND_IN


def test_a_value_of_the_wrong_type_is_refused_by_name(hub_side):
    for name, value in {"trusted_ips": 10, "log_format": "xml", "data_dir": ["a"]}.items():
        answer = hub_side.start({name: value})
        assert (answer["kind"], f"'{name}'" in answer["error"]) == ("TraitError", True), answer


def test_one_word_is_a_list_of_one(hub_side):
    assert hub_side.start({"trusted_ips": "10.0.0.7"})["words"] == ["--trusted-ips", "10.0.0.7", *HUBS_OWN]


def test_a_missing_program_is_named_with_the_command_that_gets_it(hub_side):
    answer = hub_side.start({"command": ["pointsman"]})
    assert answer["kind"] == "FileNotFoundError"
    python = hub_side.process.args[0]
    assert answer["error"].endswith(f"Get it with: {python} -m pip install --force-reinstall pointsman")
    answer = hub_side.start({"command": ["/nowhere/pointsman"]})
    assert answer["kind"] == "FileNotFoundError"
    assert "`/nowhere/pointsman`" in answer["error"]
    assert "Remove the setting" in answer["error"]


def test_the_program_may_be_on_the_path(hub_side, tmp_path):
    program = tmp_path / "pointsman"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{STAND_IN[-1]}" "$@"\n')
    program.chmod(0o755)
    assert hub_side.start({"command": ["pointsman"]}, path=str(tmp_path))["words"] == HUBS_OWN


def test_a_command_left_over_from_the_old_proxy_is_explained(hub_side):
    answer = hub_side.start({"command": ["/usr/bin/configurable-http-proxy", "--timeout", "9"]})
    assert answer["kind"] == "ValueError"
    assert "c.ConfigurableHTTPProxy.command" in answer["error"]


def test_a_proxy_that_runs_elsewhere_is_not_started(hub_side):
    answer = hub_side.start({"should_start": False, "auth_token": "x", "api_url": "http://10.0.0.9:8001"})
    assert "words" not in answer and "error" not in answer
    assert (answer["should_start"], answer["api_url"], answer["log"]) == (False, "http://10.0.0.9:8001", [])


def test_settings_without_effect_are_named(hub_side):
    answer = hub_side.start({"should_start": False, "auth_token": "x", "data_dir": "d", "extra_args": ["--a"]})
    (line,) = answer["log"]
    assert "should_start is False: PointsmanProxy.data_dir, PointsmanProxy.extra_args." in line


def test_a_proxy_that_runs_elsewhere_needs_a_token(hub_side):
    answer = hub_side.start({"should_start": False})
    assert answer["error"].startswith("PointsmanProxy.auth_token or CONFIGPROXY_AUTH_TOKEN")
