"""A small TCP balancer: one address before several servers, of which those that are well get the connections.

It does what a load balancer or a Kubernetes Service does with readiness probes, and no more. It never looks into a
connection, and one that is open stays with its server.
"""

import asyncio
import contextlib
import itertools
import threading

LOOPBACK = "127.0.0.1"
PROBE_INTERVAL_SECONDS = 1
PROBE_TIMEOUT_SECONDS = 1
CONNECT_TIMEOUT_SECONDS = 1
FAILURES_TO_LEAVE = 2
CHUNK_BYTES = 65536


def abort(pair):
    """Cut both ends of a connection."""
    for end in pair:
        end.transport.abort()


class Backend:
    """One server, and how it is."""

    def __init__(self, port):
        self.port = port
        self.failures = FAILURES_TO_LEAVE  # out until it was well once
        self.seen = "not asked yet"
        self.is_drained = False
        # The two ends of each connection that goes through.
        self.pairs = set()

    @property
    def is_in(self):
        return self.failures < FAILURES_TO_LEAVE and not self.is_drained


class Balancer:
    """A port of ours before ports of others, on a thread of its own."""

    def __init__(self, port, backends, probe_path):
        self.port = port
        self.backends = {name: Backend(each) for name, each in backends.items()}
        self.probe_path = probe_path
        self.turn = itertools.count()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.listening = threading.Event()
        self.failed = None
        self.serving = set()

    @property
    def url(self):
        return f"http://{LOOPBACK}:{self.port}"

    def start(self):
        """Listen. Servers that are not there yet are let in once they are well."""
        self.thread.start()
        self.listening.wait()
        if self.failed:
            raise self.failed
        return self

    def stop(self):
        """Close the port and every connection."""
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(5)

    def drain(self, name, drained=True):
        """Give a server no new connections, however well it is, or give it some again."""
        self.backends[name].is_drained = drained

    def distrust(self, name):
        """Give a server that starts anew no connections until it was well once, as Kubernetes does."""
        self.backends[name].failures = FAILURES_TO_LEAVE

    def is_in(self, name):
        """Whether a server gets connections now."""
        return self.backends[name].is_in

    def describe(self, name):
        """What an administrator wants to know about a server."""
        backend = self.backends[name]
        if backend.is_drained:
            return "being drained"
        return "in rotation" if backend.is_in else f"out of rotation: {backend.seen}"

    def _run(self):
        asyncio.set_event_loop(self.loop)
        try:
            serving = asyncio.start_server(self._serve, LOOPBACK, self.port, backlog=1024)
            server = self.loop.run_until_complete(serving)
        except OSError as error:
            self.failed = error
            self.listening.set()
            return
        probes = [self.loop.create_task(self._probe_for_ever(each)) for each in self.backends.values()]
        self.listening.set()
        self.loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, *probes, return_exceptions=True))
        self.loop.close()

    # Probes

    async def _probe_for_ever(self, backend):
        while True:
            status = await self._probe(backend)
            if status == 200:
                backend.failures, backend.seen = 0, "well"
            else:
                backend.failures += 1
                backend.seen = f"{self.probe_path} answers {status}" if status else "doesn't answer"
            if status is None and backend.failures >= FAILURES_TO_LEAVE:
                # Who hangs would keep its clients hanging. Who says that it isn't ready may finish what it has.
                for pair in list(backend.pairs):
                    abort(pair)
            await asyncio.sleep(PROBE_INTERVAL_SECONDS)

    async def _probe(self, backend):
        """The status that the probe's path is answered with, or None if there is no answer."""
        request = f"GET {self.probe_path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n\r\n"
        writer = None
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(LOOPBACK, backend.port), CONNECT_TIMEOUT_SECONDS
            )
            writer.write(request.encode())
            line = await asyncio.wait_for(reader.readline(), PROBE_TIMEOUT_SECONDS)
            return int(line.split()[1])
        except (OSError, asyncio.TimeoutError, ValueError, IndexError):
            return None
        finally:
            if writer is not None:
                writer.transport.abort()

    # Connections

    def _order(self):
        """All servers in the order to try them: those that are well by turns, the others only if none of these will."""
        backends = list(self.backends.values())
        first = next(self.turn) % len(backends)
        turned = backends[first:] + backends[:first]
        return sorted(turned, key=lambda backend: (not backend.is_in, backend.is_drained))

    async def _serve(self, reader, writer):
        # The loop itself would forget who waits for a connection that is gone.
        task = asyncio.current_task()
        self.serving.add(task)
        try:
            for backend in self._order():
                with contextlib.suppress(OSError, asyncio.TimeoutError):
                    connecting = asyncio.open_connection(LOOPBACK, backend.port)
                    there = await asyncio.wait_for(connecting, CONNECT_TIMEOUT_SECONDS)
                    return await self._join(backend, (reader, writer), there)
            writer.transport.abort()
        finally:
            self.serving.discard(task)

    async def _join(self, backend, here, there):
        """Pass bytes on in both directions until both are done, or one end is gone."""
        pair = (here[1], there[1])
        backend.pairs.add(pair)
        try:
            await asyncio.gather(self._pass_on(here[0], there[1]), self._pass_on(there[0], here[1]))
            for end in pair:
                end.close()
        except OSError:
            abort(pair)
        finally:
            backend.pairs.discard(pair)

    @staticmethod
    async def _pass_on(source, sink):
        while True:
            data = await source.read(CHUNK_BYTES)
            if not data:
                break
            sink.write(data)
            await sink.drain()
        with contextlib.suppress(OSError):
            sink.write_eof()
