"""Become a program that is asked to stop as soon as its parent is gone: `with_parent.py PROGRAM ARGUMENT...`"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(number=signal.SIGKILL):
    """Ask Linux to send this process a signal as soon as the thread that started it is gone."""
    _libc.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)


if __name__ == "__main__":
    parent = os.getppid()
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the parent is gone already")
    os.execvp(sys.argv[1], sys.argv[1:])
