"""Pointsman's image: the static program, and the image that the Dockerfile puts it together in."""

import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from . import fetch
from .places import HOME, ROOT, Missing, build_environment

REPOSITORY = "quay.io/pointsman/pointsman"
STAGE = ROOT / "target" / "image"
# Of another kind than the tests' own builds, so it lies beside them.
STATIC = ROOT / "target" / "static"
ASSEMBLER = "pointsman-assembler:1"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
BILL = "pointsman.cdx.json"
# A build for tests should be there soon: nothing of it is optimised, and it has no tables for debuggers.
QUICK = {"CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_PROFILE_DEV_OPT_LEVEL": "0"}
QUICK_FLAGS = ["--config", 'profile.dev.package."*".opt-level=0']


def version():
    """The version that the chart names as well."""
    return re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)


def static_program(quick):
    """Compile Pointsman into one file that needs no library, and put it where the Dockerfile takes it from."""
    target = re.search(r"^host: (.+)$", fetch.output_of(["rustc", "-vV"]), re.M).group(1)
    command = [ROOT / "scripts" / "cargo", "build", "--locked", "--bin", "pointsman", "--target", target]
    command += ["--target-dir", STATIC, *(QUICK_FLAGS if quick else ["--release"])]
    environment = {**build_environment(), "RUSTFLAGS": "-C target-feature=+crt-static", **(QUICK if quick else {})}
    subprocess.run([str(word) for word in command], cwd=ROOT, env=environment, check=True)
    STAGE.mkdir(parents=True, exist_ok=True)
    program = STAGE / "pointsman"
    shutil.copy2(STATIC / target / ("debug" if quick else "release") / "pointsman", program)
    if quick:
        subprocess.run(["strip", program], check=True)
    else:
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
    if subprocess.run(["docker", "image", "inspect", ASSEMBLER], capture_output=True).returncode == 0:
        return ASSEMBLER
    busybox = shutil.which("busybox") or fetch.debian_packages("busybox", None, ["busybox-static"]) / "bin/busybox"
    if "not a dynamic executable" not in fetch.output_of(["ldd", busybox]):
        raise Missing(f"{busybox} needs libraries. Install busybox-static, or compile in Docker: docker build -t pointsman .")
    if not AUTHORITIES.exists():
        raise Missing(f"{AUTHORITIES} is not there. On Debian: apt-get install ca-certificates")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add(busybox, "bin/busybox")
        for name in ("sh", "mkdir", "cp", "chmod"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, "busybox", 0o777
            tar.addfile(link)
        tar.add(AUTHORITIES.resolve(), str(AUTHORITIES).lstrip("/"))
    subprocess.run(
        ["docker", "import", "--change", "ENV PATH=/bin", "-", ASSEMBLER],
        input=content.getvalue(), stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
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
