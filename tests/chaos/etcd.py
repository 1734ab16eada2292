"""What faults ask of etcd."""

import base64
import subprocess

from world import EACH, ETCD_QUOTA_BYTES, WorldFailed, until


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


async def make_room(world):
    """Between runs: whoever runs etcd has it compacted and defragmented, so that it never reaches its quota by age."""
    sizes = [int((await world.etcd(n, "maintenance/status"))["dbSize"]) for n in EACH]
    if max(sizes) >= ETCD_QUOTA_BYTES // 3:
        await give_back(world)


async def give_back(world):
    """Give back the room that only history takes."""
    await compact(world)
    for n in EACH:
        await world.etcd(n, "maintenance/defragment", {}, 20)


async def disarm(world):
    """What is to be done once etcd has refused writes for lack of space. Nothing, if it doesn't."""
    alarms = (await any_etcd(world, "maintenance/alarm", {"action": "GET"})).get("alarms", [])
    if alarms:
        await give_back(world)
    for alarm in alarms:
        await any_etcd(world, "maintenance/alarm", {**alarm, "action": "DEACTIVATE"})


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--sparse=always", str(source), str(target)], check=True)
