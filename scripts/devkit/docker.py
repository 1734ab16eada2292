"""A Docker daemon: the machine's own, or one that is started for as long as it is needed."""

import contextlib
import os
import shutil
import signal
import subprocess
import time

from . import fetch
from .places import LOGS, Missing
from .with_parent import die_with_parent

PACKAGES = ["docker.io"]
START_SECONDS = 60
STOP_SECONDS = 30


def ask():
    """The version of the daemon that answers, or None, and what Docker said instead."""
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        return None, "there is no program `docker`"
    except subprocess.TimeoutExpired:
        return None, "it didn't answer within 20 s"
    if done.returncode == 0 and done.stdout.strip():
        return done.stdout.strip(), ""
    return None, done.stderr.strip() or f"`docker version` failed with status {done.returncode}"


@contextlib.contextmanager
def daemon():
    """Have a daemon while the block runs, and give a sentence about it. One that we started ends with the block."""
    version, said = ask()
    if version:
        yield f"Docker {version}, which runs on this machine"
        return
    refuse_if_it_is_not_ours_to_start(said)
    if not (shutil.which("docker") and shutil.which("dockerd")):
        fetch.apt_install("docker", PACKAGES)
    process = start()
    try:
        yield f"Docker {wait_until_it_answers(process)}, started for this, and stopped afterwards"
    finally:
        stop(process)


def refuse_if_it_is_not_ours_to_start(said):
    """A daemon that somebody else looks after is for them to mend."""
    if os.environ.get("DOCKER_HOST"):
        raise Missing(f"No Docker daemon answers at DOCKER_HOST={os.environ['DOCKER_HOST']}: {said}. Start it, or unset it.")
    if "permission denied" in said.lower():
        raise Missing("A Docker daemon runs, but you may not use it: sudo usermod -aG docker $USER, then log in again.")
    if os.geteuid() != 0:
        raise Missing(
            f"No Docker daemon answers: {said}. Only root can start one: sudo systemctl start docker. "
            "If it isn't installed: sudo apt-get install docker.io"
        )


def start(options=()):
    """Start a daemon. It ends with this program, even if that is killed."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with open(LOGS / "dockerd.log", "wb") as log:
        return subprocess.Popen(
            ["dockerd", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us; containers have to go first
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )


def wait_until_it_answers(process):
    """Its version, as soon as it answers."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        version, said = ask()
        if version:
            return version
        if process.poll() is not None:
            raise Missing(f"`dockerd` was started and ended with status {process.returncode}. {its_last_words()}")
        if time.monotonic() > deadline:
            raise Missing(f"`dockerd` was started, and doesn't answer after {START_SECONDS} s: {said}. {its_last_words()}")
        time.sleep(0.2)


def its_last_words():
    log = LOGS / "dockerd.log"
    tail = "\n      ".join(log.read_text(errors="replace").splitlines()[-5:])
    return (
        "It needs a machine of its own, or a container that may mount and change the network (--privileged). "
        f"The end of {log}:\n      {tail}"
    )


def stop(process):
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
