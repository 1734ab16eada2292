"""Ports for servers that must come back on the same one."""

import errno
import fcntl
import os
import random
import socket
import tempfile

# Linux takes even ports from 32768 upwards for outgoing connections: a server that is restarted
# on such a port may find it taken. Odd ones below that are left alone.
LOWEST, HIGHEST = 20001, 32767

_handed_out = set()
_reservations = None


def _reserve(port):
    """Whether nobody else who takes ports here has this one, as demos and tests side by side do.

    A byte of a file is locked for as long as this process lives: a port is free until its server listens.
    """
    global _reservations
    if _reservations is None:
        path = os.path.join(tempfile.gettempdir(), f"pointsman-ports-{os.getuid()}")
        _reservations = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(_reservations, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def is_free(port, fresh=False):
    """Whether a server could listen on this port now, on every address. `fresh`: even one that minds what lingers there."""
    for family, everywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                # To most servers connections that linger from an earlier one don't count, only one that listens.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0 if fresh else 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((everywhere, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            if family == socket.AF_INET:
                raise
            # A machine without IPv6 has nothing that could be taken there.
    return True


def free_port(preferred=None):
    """A free port: the preferred one if it can be had, else an odd one below Linux's own range."""
    if preferred is not None and preferred not in _handed_out and is_free(preferred) and _reserve(preferred):
        _handed_out.add(preferred)
        return preferred
    for _ in range(1000):
        port = random.randrange(LOWEST, HIGHEST + 1, 2)
        # Reserved first: this look at a port would be in the way of a server that was given it.
        if port not in _handed_out and _reserve(port) and is_free(port, fresh=True):
            _handed_out.add(port)
            return port
    raise OSError(f"Of 1000 ports tried between {LOWEST} and {HIGHEST}, none is free.")
