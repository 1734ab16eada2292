"""Python calls this at its start: the public name of the subdomain run is this machine, without asking a name server.

JupyterHub's tests use a public name, and names below it, that stand for 127.0.0.1. A machine without a way out can't
look them up, and a test should not depend on somebody's name server.
"""

import os
import socket
import sys

ZONE = os.environ.get("HUB_SUITE_ZONE")

if ZONE:
    # With aiodns, aiohttp would ask the name server by itself; without it, it comes by `getaddrinfo` as all others do.
    sys.modules["aiodns"] = None
    look_up = socket.getaddrinfo

    def look_up_here(host, *rest, **named):
        name = host.decode() if isinstance(host, bytes) else host
        ours = isinstance(name, str) and (name == ZONE or name.endswith("." + ZONE))
        return look_up("127.0.0.1" if ours else host, *rest, **named)

    socket.getaddrinfo = look_up_here
