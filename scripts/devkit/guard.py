"""Run work in a process that is cleaned up after, whatever happens to it or to us.

Two processes: the *front*, which the terminal knows, and behind it the *worker*, which does the work.
Each adopts the orphans below it. If the front is killed, the worker is told and stops in good order;
if the worker is killed, the front kills what the worker started and removes its folder. If both are
killed, Linux kills what the worker started (`die_with_parent`).
"""

import contextlib
import os
import shutil
import signal
import sys
import traceback

from .child import adopt_orphans, kill_descendants
from .with_parent import die_with_parent

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """Somebody asked us to stop."""


def _stop(number, _frame):
    # Once is enough: what follows is bounded in time and must not be interrupted.
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(signal.Signals(number).name)


def _worker(work, folder):
    os.setsid()
    adopt_orphans()
    for each in STOPPING:
        signal.signal(each, _stop)
    die_with_parent(signal.SIGTERM)
    try:
        return work()
    except Stopped:
        return 0
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        for each in STOPPING:
            signal.signal(each, signal.SIG_IGN)
        kill_descendants()
        shutil.rmtree(folder, ignore_errors=True)


def run_guarded(work, folder):
    """Run `work()` in the worker, return its exit status, and leave no process and no folder behind."""
    adopt_orphans()
    sys.stdout.flush()
    # A signal between the fork and the handlers must not get lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    front = os.getpid()
    worker = os.fork()
    if worker == 0:
        status = 1
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            status = _worker(work, folder) if os.getppid() == front else 1
        except Stopped:
            status = 0
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(status)

    def pass_on(_number, _frame):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGTERM)

    for each in STOPPING:
        signal.signal(each, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == worker:
            break
    kill_descendants()
    shutil.rmtree(folder, ignore_errors=True)
    return os.waitstatus_to_exitcode(status)
