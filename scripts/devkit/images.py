"""The images of etcd and Traefik that the chart names: kept, pulled, or made of what this checkout has.

Where no registry of images is reached, a stand-in takes the official name. It holds the program of that very version and
what it loads, and is refused if there is only another version.
"""

import re
import subprocess
import tarfile
from pathlib import Path

from . import fetch
from .places import BIN, ROOT, Missing

VALUES = ROOT / "helm" / "pointsman" / "values.yaml"
ETCD = "quay.io/coreos/etcd"
TRAEFIK = "traefik"
STAND_IN = "org.pointsman.stand-in"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PULL_SECONDS = 600


def chart_image(repository):
    """The name with the tag that the chart has for a repository."""
    comments = r"(?: *#.*\n)*"
    pattern = rf"^ *repository: {re.escape(repository)} *\n{comments} *tag: *\"?([^\s\"#]+)"
    found = re.search(pattern, VALUES.read_text(), re.M)
    if not found:
        raise Missing(f"{VALUES} has no `repository: {repository}` with a `tag:` below it.")
    return f"{repository}:{found.group(1)}"


def ensure_all():
    """Have both images, and say where each came from."""
    etcd, traefik = chart_image(ETCD), chart_image(TRAEFIK)
    return f"{etcd} {ensure(etcd, make_etcd)}; {traefik} {ensure(traefik, make_traefik)}"


def ensure(name, make):
    """Have one image: keep it, else pull it, else make it. Says which."""
    if is_here(name):
        return "is here" + (", a stand-in" if is_stand_in(name) else "")
    reason = pull(name)
    if reason is None:
        return "was pulled"
    make(name, reason)
    return "is a stand-in with the same version, as no registry was reached"


def is_here(name):
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode == 0


def is_stand_in(name):
    label = f'{{{{ index .Config.Labels "{STAND_IN}" }}}}'
    return fetch.output_of(["docker", "image", "inspect", "--format", label, name]).strip() == "true"


def pull(name):
    """Pull an image. None if that worked, else why it didn't."""
    try:
        done = subprocess.run(["docker", "pull", "--quiet", name], capture_output=True, text=True, timeout=PULL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"`docker pull` took more than {PULL_SECONDS} s"
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]


def make_etcd(name, reason):
    programs = [BIN / program for program in ("etcd", "etcdctl")]
    check_version(name, programs[0], ["--version"], r"etcd Version: (\d+)\.(\d+)\.(\d+)", reason)
    hand_over(name, programs, ['CMD ["/usr/local/bin/etcd"]', "WORKDIR /var/etcd"], ["var/etcd"])


def make_traefik(name, reason):
    check_version(name, BIN / "traefik", ["version"], r"Version: +(\d+)\.(\d+)\.(\d+)", reason)
    hand_over(name, [BIN / "traefik"], ['ENTRYPOINT ["/usr/local/bin/traefik"]'], [])


def check_version(name, program, words, pattern, reason):
    """A stand-in under the name of another version would be a lie."""
    found = fetch.version_of([program, *words], pattern)
    have = "v{}.{}.{}".format(*found) if found else "none that runs"
    if have != name.rpartition(":")[2]:
        raise Missing(
            f"{name} can't be pulled ({reason}), and no stand-in can be made: {program} is {have}. "
            "Let Docker reach the registry, or load the image by `docker load`."
        )


def libraries_of(program):
    """The shared libraries and the loader that a program needs; none if it is static."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True)
    return sorted(set(re.findall(r"(?:=> |^\s*)(/\S+)", done.stdout, re.M))) if done.returncode == 0 else []


def hand_over(name, programs, changes, folders, links=None):
    """Make an image of these programs, and nothing else but what they load and read. `links` are paths to what they mean."""
    options = [*changes, "ENV PATH=/usr/local/bin", f"LABEL {STAND_IN}=true"]
    command = ["docker", "import", *[word for each in options for word in ("--change", each)], "-", name]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    files = {f"usr/local/bin/{program.name}": program for program in programs}
    files.update({library.lstrip("/"): Path(library) for program in programs for library in libraries_of(program)})
    if CERTIFICATES.exists():
        files[str(CERTIFICATES).lstrip("/")] = CERTIFICATES
    try:
        # Links are followed: what a library is called matters, not where it lies on this machine.
        with tarfile.open(fileobj=process.stdin, mode="w|", dereference=True) as tar:
            add_folder(tar, "tmp", 0o1777)
            for folder in folders:
                add_folder(tar, folder, 0o755)
            for path, file in files.items():
                tar.add(file.resolve(), arcname=path)
            for path, meant in (links or {}).items():
                add_link(tar, path, meant)
        process.stdin.close()
    except BrokenPipeError:
        pass  # `docker import` has gone, and says why
    said = process.stderr.read().decode(errors="replace").strip()
    if process.wait() != 0:
        raise Missing(f"`docker import` of a stand-in for {name} failed with status {process.returncode}: {said}")


def add_folder(tar, name, mode):
    folder = tarfile.TarInfo(name)
    folder.type, folder.mode = tarfile.DIRTYPE, mode
    tar.addfile(folder)


def add_link(tar, name, meant):
    link = tarfile.TarInfo(name)
    link.type, link.linkname, link.mode = tarfile.SYMTYPE, meant, 0o777
    tar.addfile(link)
