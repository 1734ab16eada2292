"""What faults ask of etcd."""

import base64
import subprocess

from world import EACH, WorldFailed, until


def b64(text):
    return base64.b64encode(text.encode()).decode()


async def any_etcd(world, path, content, seconds=15):
    """A call of any member that answers."""

    async def call():
        problem = None
        for n in EACH:
            try:
                return [await world.etcd(n, path, content)]
            except (RuntimeError, ValueError) as why:
                problem = why
        raise RuntimeError(f"no member of etcd takes {path}: {problem}")

    return (await until(f"etcd takes {path}", call, seconds, 0.2))[0]


async def compact(world):
    """Throw away all history up to now."""
    revision = await world.revision()
    try:
        await any_etcd(world, "kv/compaction", {"revision": revision, "physical": True}, 3)
    except WorldFailed:
        pass  # somebody was faster, or there is no quorum


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--sparse=always", str(source), str(target)], check=True)
