"""Plain HTTP over plain sockets, one connection a request: what is measured is the server, not a library."""

import asyncio
import json

LOOPBACK = "127.0.0.1"


async def end(tasks):
    """Cancel tasks until they have ended: before Python 3.12 a task may miss it, in the moment in which it gets an answer."""
    tasks = list(tasks)
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=0.5)


async def _exchange(port, head, body):
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(head + body)
        line = await reader.readline()
        if not line:
            raise ConnectionResetError("no answer")
        status = int(line.split()[1])
        length = None
        while True:
            line = await reader.readline()
            if line in (b"\r\n", b""):
                break
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                length = int(value)
        chunked = length is None and status not in (204, 304)
        data = await (reader.read() if chunked else reader.readexactly(length or 0))
        return status, data
    finally:
        writer.transport.abort()


async def ask(port, path, method="GET", body=b"", headers=(), timeout=10):
    """Status and body. In place of a status: `refused` (nothing was sent), `late` or `broken` (nobody knows)."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {LOOPBACK}:{port}", "Connection: close", *headers]
    if body or method in ("POST", "PUT"):
        lines.append(f"Content-Length: {len(body)}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    try:
        return await asyncio.wait_for(_exchange(port, head, body), timeout)
    except ConnectionRefusedError:
        return "refused", b""
    except asyncio.TimeoutError:
        return "late", b""
    except (OSError, ValueError, IndexError, asyncio.IncompleteReadError):
        return "broken", b""


async def ask_json(port, path, content=None, timeout=10):
    """A call of etcd's own HTTP interface. Raises if it fails."""
    body = json.dumps(content or {}).encode()
    status, answer = await ask(port, path, "POST", body, ("Content-Type: application/json",), timeout)
    if status != 200:
        raise RuntimeError(f"etcd answers {status} to {path}: {answer[:300].decode(errors='replace')}")
    # Long answers come in chunks; what is asked for here is short, and one of them.
    text = answer.decode()
    return json.loads(text[text.index("{") : text.rindex("}") + 1])
