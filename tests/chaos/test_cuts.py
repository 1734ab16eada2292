"""The links really do what their modes say."""

import asyncio
import os

import pytest
from cuts import LOOPBACK, Cuts
from devkit import ports
from devkit.ports import free_port, is_free

SOON, NEVER_SECONDS = 5, 0.4


class Echo:
    """A server behind a link, a link, and what the server has heard."""

    async def __aenter__(self):
        self.heard = b""
        self.target, self.port = free_port(), free_port()
        self.server = await asyncio.start_server(self.serve, LOOPBACK, self.target)
        plan = {"links": [{"name": "it", "port": self.port, "to": self.target}], "balancers": [], "backends": []}
        self.cuts = await Cuts.start(plan, os.devnull, None)
        return self

    async def serve(self, reader, writer):
        while data := await reader.read(100):
            self.heard += data
            writer.write(data.upper())
        writer.close()

    async def connect(self):
        return await asyncio.open_connection(LOOPBACK, self.port)

    async def __aexit__(self, *_):
        self.cuts.process.stdin.close()
        await self.cuts.process.wait()
        self.server.close()


def test_a_port_where_connections_linger_is_not_given(monkeypatch):
    """A link binds its port as servers don't, so that nobody else gets it, and can't have such a one for a minute."""

    async def lingering():
        port = free_port()
        server = await asyncio.start_server(lambda _, writer: writer.close(), LOOPBACK, port)
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        return port

    port = asyncio.run(lingering())
    assert is_free(port) and not is_free(port, fresh=True)
    monkeypatch.setattr(ports, "_handed_out", set())
    monkeypatch.setattr(ports, "LOWEST", port)
    monkeypatch.setattr(ports, "HIGHEST", port)
    with pytest.raises(OSError, match="none is free"):
        free_port()


def trial(work):
    async def run():
        async with Echo() as echo:
            await asyncio.wait_for(work(echo), 30)

    asyncio.run(run())


async def answer(reader):
    return await asyncio.wait_for(reader.readexactly(1), SOON)


async def assert_silence(reader):
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(reader.readexactly(1), NEVER_SECONDS)


async def assert_reset(reader):
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), SOON)


def test_pass_then_refuse_then_pass():
    async def work(echo):
        reader, writer = await echo.connect()
        writer.write(b"a")
        assert await answer(reader) == b"A"
        await echo.cuts.set("it", "refuse")
        await assert_reset(reader)
        with pytest.raises(ConnectionRefusedError):
            await echo.connect()
        assert not is_free(echo.port)
        await echo.cuts.set("it", "pass")
        reader, writer = await echo.connect()
        writer.write(b"b")
        assert await answer(reader) == b"B"

    trial(work)


@pytest.mark.parametrize("mode, heard", [("hole", b""), ("mute", b""), ("deaf", b"a")])
@pytest.mark.parametrize("open_before", [True, False])
def test_swallowed_and_reset_afterwards(mode, heard, open_before):
    async def work(echo):
        if open_before:
            reader, writer = await echo.connect()
        await echo.cuts.set("it", mode)
        if not open_before:
            reader, writer = await echo.connect()
        writer.write(b"a")
        await assert_silence(reader)
        assert echo.heard == heard
        await echo.cuts.set("it", "pass")
        await assert_reset(reader)

    trial(work)


@pytest.mark.parametrize("open_before", [True, False])
def test_held_back_and_delivered_late(open_before):
    async def work(echo):
        if open_before:
            reader, writer = await echo.connect()
            writer.write(b"x")
            assert await answer(reader) == b"X"
        await echo.cuts.set("it", "stall")
        if not open_before:
            reader, writer = await echo.connect()
        writer.write(b"a")
        await assert_silence(reader)
        assert echo.heard in (b"", b"x")
        await echo.cuts.set("it", "pass")
        assert await answer(reader) == b"A"

    trial(work)


def test_torn_after_the_request_has_arrived():
    async def work(echo):
        await echo.cuts.set("it", "tear")
        for _ in range(1000):
            reader, writer = await echo.connect()
            echo.heard = b""
            writer.write(b"a")
            try:
                await answer(reader)
            except (ConnectionResetError, asyncio.IncompleteReadError):
                assert echo.heard == b"a"
                return
        pytest.fail("of 1000 answers none got lost")

    trial(work)


def test_cut_for_one_process_only():
    async def work(echo):
        await echo.cuts.tell_apart("it", [os.getpid()])
        await echo.cuts.set("it", "hole", os.getpid() + 1)
        reader, writer = await echo.connect()
        writer.write(b"a")
        assert await answer(reader) == b"A"
        await echo.cuts.set("it", "hole", os.getpid())
        writer.write(b"b")
        await assert_silence(reader)
        other, other_writer = await echo.connect()
        other_writer.write(b"c")
        await assert_silence(other)
        assert echo.heard == b"a"

    trial(work)
