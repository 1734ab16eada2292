"""Pointsman's image: the static program, and the image that the Dockerfile puts it together in."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from . import fetch, images
from .places import HOME, ROOT, Missing, build_environment

REPOSITORY = "quay.io/pointsman/pointsman"
STAGE = ROOT / "target" / "image"
# Of another kind than the tests' own builds, so it lies beside them.
STATIC = ROOT / "target" / "static"
ASSEMBLER = "pointsman-assembler:1"
# What the Dockerfile calls, beside the shell.
COMMANDS = ("mkdir", "cp", "chmod")
BILL = "pointsman.cdx.json"
# A build for tests should be there soon: nothing of it is optimised, and it has no tables for debuggers.
QUICK = ["profile.dev.debug=0", 'profile.dev.strip="symbols"', 'profile.dev.package."*".opt-level=0']


def version():
    """The version that the chart names as well."""
    return re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)


def static_program(quick):
    """Compile Pointsman into one file that needs no library, and put it where the Dockerfile takes it from."""
    target = re.search(r"^host: (.+)$", fetch.output_of(["rustc", "-vV"]), re.M).group(1)
    command = [ROOT / "scripts" / "cargo", "build", "--locked", "--bin", "pointsman", "--target", target]
    command += ["--target-dir", STATIC]
    command += [word for setting in QUICK for word in ("--config", setting)] if quick else ["--release"]
    environment = {**build_environment(), "RUSTFLAGS": "-C target-feature=+crt-static"}
    subprocess.run([str(word) for word in command], cwd=ROOT, env=environment, check=True)
    STAGE.mkdir(parents=True, exist_ok=True)
    shutil.copy2(STATIC / target / ("debug" if quick else "release") / "pointsman", STAGE / "pointsman")
    if not quick:
        bill_of_materials(target)


def bill_of_materials(target):
    """List what is compiled into the program, in CycloneDX' form, beside it. `scripts/dev-env sbom` gets the tool."""
    tool = HOME / "sbom" / "bin" / "cargo-cyclonedx"
    if not tool.exists():
        raise Missing("cargo-cyclonedx isn't there, which lists what is compiled in. Get it with: scripts/dev-env sbom")
    command = [tool, "cyclonedx", "--quiet", "--format=json", "--spec-version=1.5", "--describe=binaries"]
    command += ["--no-build-deps", f"--target={target}"]
    # It is the same for the same sources, wherever they lie.
    subprocess.run([str(word) for word in command], cwd=ROOT, env={**build_environment(), "SOURCE_DATE_EPOCH": "0"}, check=True)
    written = ROOT / "pointsman_bin.cdx.json"
    (STAGE / BILL).write_text(written.read_text().replace(f"path+file://{ROOT}#", ""))
    written.unlink()


def assembler():
    """The smallest image with a shell and certificates of authorities: it copies files, and compiles nothing."""
    if images.is_here(ASSEMBLER):
        return ASSEMBLER
    if not images.CERTIFICATES.exists():
        raise Missing(f"{images.CERTIFICATES} is not there. On Debian: apt-get install ca-certificates")
    busybox = shutil.which("busybox") or fetch.debian_packages("busybox", None, ["busybox-static"]) / "bin/busybox"
    links = {path: "/usr/local/bin/busybox" for path in ("bin/sh", *(f"usr/local/bin/{name}" for name in COMMANDS))}
    images.hand_over(ASSEMBLER, [Path(busybox)], [], [], links)
    return ASSEMBLER


def build(tag, build_image):
    """A plain `docker build`, by the builder that every Docker has."""
    revision = fetch.output_of(["git", "-C", ROOT, "rev-parse", "HEAD"]).strip()
    values = {"VERSION": version(), "REVISION": revision or "unknown"}
    if build_image:
        values["BUILD_IMAGE"] = build_image
    command = ["docker", "build", "--tag", tag]
    command += [word for name, value in values.items() for word in ("--build-arg", f"{name}={value}")]
    subprocess.run([*command, str(ROOT)], check=True, env={**os.environ, "DOCKER_BUILDKIT": "0"})
    return int(fetch.output_of(["docker", "image", "inspect", "--format", "{{.Size}}", tag]))
