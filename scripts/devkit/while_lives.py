"""Run a program for as long as another process lives: `while_lives.py PID PROGRAM ARGUMENT...`

For what must outlive its parent, but not the demo. Signals that ask for an end are passed on to the program.
"""

import os
import select
import signal
import subprocess
import sys

from with_parent import die_with_parent

PATIENCE_SECONDS = 5


def main():
    guardian = os.pidfd_open(int(sys.argv[1]))
    program = subprocess.Popen(sys.argv[2:], preexec_fn=die_with_parent)
    own_end = os.pidfd_open(program.pid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: program.send_signal(number))
    ready, _, _ = select.select([guardian, own_end], [], [])
    if own_end not in ready:
        program.terminate()
        try:
            program.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            program.kill()
    status = program.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
