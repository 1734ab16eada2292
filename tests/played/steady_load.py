"""A steady load of new connections, so that each request is balanced anew, and what became of every one."""

import asyncio
import threading
import time
from collections import Counter

RATE_PER_SECOND = 200
PATIENCE_SECONDS = 10


class Load:
    """Asks for one path at a steady rate, in a thread of its own. Anything but 200 is a failure."""

    def __init__(self, port, path, rate=RATE_PER_SECOND, host="127.0.0.1"):
        self.host, self.port, self.rate = host, port, rate
        self.request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
        self.seen, self.failures, self.slowest_seconds = Counter(), [], 0.0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self):
        self.began = time.monotonic()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(PATIENCE_SECONDS + 5)
        self.seconds = time.monotonic() - self.began

    async def _run(self):
        under_way = set()
        due = time.monotonic()
        while not self.stopping.is_set():
            task = asyncio.create_task(self._ask())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            due += 1 / self.rate
            await asyncio.sleep(max(due - time.monotonic(), 0))
        if under_way:
            await asyncio.wait(under_way)

    async def _ask(self):
        began = time.monotonic()
        try:
            status = await asyncio.wait_for(self._status(), PATIENCE_SECONDS)
        except (OSError, asyncio.TimeoutError, ValueError) as error:
            status = type(error).__name__
        took = time.monotonic() - began
        self.slowest_seconds = max(self.slowest_seconds, took)
        self.seen[status] += 1
        if status != 200:
            self.failures.append(f"{time.strftime('%T')} {status} after {took:.2f} s")

    async def _status(self):
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(self.request)
            answer = await reader.read()
            if not answer:
                raise ValueError("no answer")
            return int(answer.split(b" ", 2)[1])
        finally:
            writer.close()

    @property
    def total(self):
        return sum(self.seen.values())

    def __str__(self):
        words = ", ".join(f"{count} × {status}" for status, count in self.seen.most_common() if status != 200)
        return f"{len(self.failures)} of {self.total} failed" + (f" ({words})" if words else "")
