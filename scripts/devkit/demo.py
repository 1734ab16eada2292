"""What the demos have in common: saying what is done, getting the parts, building, and cleaning up after dead ones."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .child import PartFailed
from .guard import Stopped, run_guarded
from .places import HOME, ROOT, Missing, build_environment
from .ports import is_free

PREFIX = "demo-"


def say(text="", end="\n"):
    """Print a line. A terminal that is gone is no reason to stop half-way."""
    with contextlib.suppress(OSError, ValueError):
        print(text, end=end, flush=True)


class Step:
    """One line of progress, with the time it took."""

    def __init__(self, what):
        self.what = what

    def __enter__(self):
        self.begin = time.monotonic()
        say(f"  {self.what:<34} ", end="")
        return self

    def __exit__(self, kind, *_):
        took = time.monotonic() - self.begin
        if sys.stdout.isatty():
            say("\033[K", end="")
        say(f"{took:6.1f} s" if kind is None else "stopped" if kind is Stopped else "failed")


def remove_leftovers():
    """Remove the folders of demos that could not clean up: those that nobody holds a lock on."""
    for folder in HOME.glob(PREFIX + "*"):
        with contextlib.suppress(OSError), open(folder / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def show_last_line(log):
    """Show on a terminal what a long step is at, right of its name, and go back to where we were."""
    if sys.stdout.isatty():
        last = (log.read_text(errors="replace").splitlines() or [""])[-1].strip()[:36]
        say(f"\0337\033[K{last}\0338", end="")


def build(binary):
    """Build Pointsman, unless a program of it was named."""
    if binary:
        return Path(binary).resolve()
    say("Building Pointsman (the first time takes some minutes)")
    with Step("cargo build --release"):
        log = HOME / "logs" / "build.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = ["cargo", "build", "--release", "--locked", "--bin", "pointsman"]
        with open(log, "w") as output:
            done = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=build_environment()
            )
        while done.poll() is None:
            show_last_line(log)
            time.sleep(0.2)
    if done.returncode != 0:
        end = "\n".join("    " + line for line in log.read_text(errors="replace").splitlines()[-25:])
        raise PartFailed(f"The build failed. The end of {log}:\n{end}")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "pointsman"


def add_arguments(parser):
    """The flags that every demo has."""
    parser.add_argument(
        "--port", type=int, default=8000, help="where users come in; another one is taken if it is busy (default: 8000)"
    )
    parser.add_argument("--binary", help="use this pointsman instead of building one")
    parser.add_argument("--no-setup", action="store_true", help="don't look whether the parts are there")


def look_for_parts(arguments, *more):
    """Get what the demo needs, unless told not to."""
    if arguments.no_setup:
        return
    say("Looking for the parts")
    wanted = [*(["traefik", "hub6"] if arguments.binary else ["demo"]), *more]
    command = [sys.executable, ROOT / "scripts" / "dev-env", *wanted]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        raise Missing("Something that the demo needs is missing; the lines above say what, and how to get it.")


def start(stack):
    """Start the parts, one line each."""
    say("Starting")
    for name, step in stack.steps():
        with Step(name):
            step()


def tell(arguments, folder, parts, more, follow):
    """The whole story of a demo: `parts(folder, binary)` are started, then `follow(stack)`. Returns the exit status."""
    stack = None
    try:
        look_for_parts(arguments, *more)
        binary = build(arguments.binary)
        if not is_free(arguments.port):
            say(f"Port {arguments.port} is taken, so another one is used.")
        stack = parts(folder, binary)
        start(stack)
        return follow(stack)
    except (PartFailed, Missing) as why:
        say(f"\n{why}")
        return 1
    except Stopped:
        say("\nStopping")
        return 0
    finally:
        if stack is not None:
            stack.stop_all()
            say("Everything is stopped.")


def run(parser, arguments, work):
    """Run `work(folder)` with a folder of its own, and leave neither process nor file. Returns the exit status."""
    if not sys.platform.startswith("linux"):
        sys.exit("The demo runs on Linux only: it needs its way to end what it started.")
    if not 1 <= arguments.port <= 65535:
        parser.error(f"--port {arguments.port}: a port is a number from 1 to 65535")
    HOME.mkdir(exist_ok=True)
    remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=HOME))
    lock = open(folder / "lock", "w")  # held as long as one of our two processes lives
    fcntl.flock(lock, fcntl.LOCK_EX)
    return run_guarded(lambda: work(folder), folder)
