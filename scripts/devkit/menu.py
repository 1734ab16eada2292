"""The commands of the demo in which parts are taken away and brought back."""

import os
import signal
import time

from .child import PartFailed
from .parts import status_of

DRAIN_SECONDS = 1.5
WELL_AGAIN_SECONDS = 20

HELP = """\
  kill PART      end it as a power cut would (kill -9)
  stop PART      freeze it (SIGSTOP): it keeps its ports and answers nobody
  cont PART      let a frozen one go on
  start PART     start it again, on the data that it had
  restart PART   end it in good order, and start it again
  roll           restart everything, one after another, under a trickle of requests
  status         all parts, and how they are
  routes         the routing table
  log PART       the end of its log
  wait SECONDS   do nothing
  quit           stop everything (as Ctrl-C does)
  Parts: {parts}"""


class Refused(Exception):
    """A command makes no sense. The message says why."""


class Menu:
    """Commands, as typed. What they have to say goes to `screen`."""

    def __init__(self, cluster, probe, screen):
        self.cluster, self.probe, self.screen = cluster, probe, screen
        self.taken_away = set()
        self.commands = {
            "kill": self.kill, "stop": self.stop, "cont": self.cont, "start": self.start, "restart": self.restart,
            "log": self.log, "roll": self.roll, "status": self.status, "routes": self.routes, "help": self.help,
        }  # fmt: skip
        self.with_part = ("kill", "stop", "cont", "start", "restart", "log")

    def do(self, line):
        """Carry out one command, or say why not. False after a command that could not be carried out."""
        words = line.split()
        try:
            self._do(*words)
            return True
        except (Refused, PartFailed) as why:
            self.screen.say(str(why))
            return False

    def _do(self, verb, *words):
        if verb == "wait":
            return time.sleep(self._seconds(words))
        if verb not in self.commands:
            raise Refused(f"There is no command {verb!r}. `help` shows those that there are.")
        if verb not in self.with_part:
            if words:
                raise Refused(f"`{verb}` stands alone.")
            return self.commands[verb]()
        if words == ("balancer",):
            raise Refused("The balancer is the demo itself; `quit` ends it.")
        if len(words) != 1 or words[0] not in self.cluster.children:
            raise Refused(f"`{verb}` needs one part: {', '.join(self.cluster.children)}.")
        return self.commands[verb](words[0])

    @staticmethod
    def _seconds(words):
        try:
            (seconds,) = map(float, words)
        except ValueError:
            seconds = -1
        if not 0 <= seconds <= 3600:
            raise Refused("`wait` needs a number of seconds, such as `wait 5`.")
        return seconds

    def newly_dead(self):
        """The parts that have ended since the last look without anybody's command."""
        dead = [name for name, child in list(self.cluster.children.items()) if child.process and not child.is_running()]
        news = [name for name in dead if name not in self.taken_away]
        self.taken_away.update(news)
        return news

    # One part

    def kill(self, name):
        child = self._running(name)
        self.taken_away.add(name)
        child.kill()
        self.screen.say(f"{name} is killed.")

    def stop(self, name):
        child = self._running(name)
        if self.cluster.is_stopped(name):
            raise Refused(f"{name} is frozen already. `cont {name}` lets it go on.")
        child.send(signal.SIGSTOP)
        self.screen.say(f"{name} is frozen.")

    def cont(self, name):
        child = self._running(name)
        if not self.cluster.is_stopped(name):
            raise Refused(f"{name} is not frozen.")
        child.send(signal.SIGCONT)
        self.screen.say(f"{name} goes on.")

    def start(self, name):
        if self.cluster.children[name].is_running():
            frozen = self.cluster.is_stopped(name)
            raise Refused(f"{name} " + (f"is frozen; `cont {name}` lets it go on." if frozen else "runs."))
        self.cluster.start_part(name)
        self.taken_away.discard(name)
        try:
            self.cluster.wait_until_well(name, WELL_AGAIN_SECONDS)
            self.screen.say(f"{name} is back, and well.")
        except PartFailed:
            # Perhaps others that it needs are away: then it is well once they are.
            self.screen.say(f"{name} runs, and is not well yet: {self._state(name)}")

    def restart(self, name):
        self._running(name)
        began = time.monotonic()
        self._restart(name)
        self.screen.say(f"{name} was restarted, in {time.monotonic() - began:.1f} s.")

    def log(self, name):
        self.screen.say(self.cluster.children[name].tail())
        self.screen.say(f"    All of it: {os.path.relpath(self.cluster.children[name].log)}")

    def _running(self, name):
        child = self.cluster.children[name]
        if not child.is_running():
            raise Refused(f"{name} isn't running. `start {name}` brings it back.")
        return child

    def _restart(self, name):
        """As an administrator does it: no new connections, then the end, then connections again once it is well."""
        balancers = [each for each in self.cluster.balancers if name in each.backends]
        for balancer in balancers:
            balancer.drain(name)
        try:
            if balancers:
                time.sleep(DRAIN_SECONDS)
            self.taken_away.add(name)
            child = self.cluster.children[name]
            child.send(signal.SIGCONT)
            child.stop()
            self.cluster.start_part(name)
            self.taken_away.discard(name)
        finally:
            for balancer in balancers:
                balancer.drain(name, False)
        self.cluster.wait_until_well(name, WELL_AGAIN_SECONDS)

    # All of them

    def roll(self):
        """Restart everything, one after another, each only once the one before is well again."""
        for name, child in self.cluster.children.items():
            if not child.is_running() or self.cluster.is_stopped(name):
                raise Refused(f"{name} isn't running; a rolling restart begins with all parts well.")
        began = time.monotonic()
        with self.probe.busy():
            for name in list(self.cluster.children):
                since = time.monotonic()
                self._restart(name)
                self.screen.say(f"  {name:<12} {time.monotonic() - since:5.1f} s")
            tally = self.probe.tally(began)
        self.screen.say(f"Everything was restarted, in {time.monotonic() - began:.0f} s: {tally}.")

    def status(self):
        """All parts, the balancer included."""
        self.screen.say(f"  {'part':<12} {'pid':>7}  {'address':<24} state")
        self.screen.say(f"  {'balancer':<12} {os.getpid():>7}  {self.cluster.public_url:<24} runs")
        for name, pid, address, _ in self.cluster.table():
            self.screen.say(f"  {name:<12} {pid:>7}  {address:<24} {self._state(name)}")

    def _state(self, name):
        if not self.cluster.children[name].is_running():
            return "not running"
        if self.cluster.is_stopped(name):
            return "frozen"
        try:
            return self.cluster.describe(name)
        except (OSError, ValueError) as error:
            return f"runs, but: {error}"

    def routes(self):
        """The table as Pointsman tells it."""
        status, body = status_of(f"{self.cluster.api_url}/api/routes", {"Authorization": f"token {self.cluster.token}"})
        if status != 200:
            raise Refused(f"The table can't be read: {status} {body.decode(errors='replace').strip()}")
        for path, target in self.cluster.targets(body):
            self.screen.say(f"  {path:<32} {target}")

    def help(self):
        self.screen.say(HELP.format(parts=", ".join(self.cluster.children)))
