"""The lines of several logs that a person wants to see while something is broken on purpose."""

import contextlib
import re
import time

# Time, level, the span it happened in, the module, and the sentence with its fields behind it.
POINTSMAN = re.compile(r"^\S+T(\d\d:\d\d:\d\d)\S*\s+(INFO|WARN|ERROR)\s+(?:\S+\{.*?\}: ?)*(pointsman[\w:]*): (.*)$")
FIELDS = re.compile(r"\s[a-z_.]+=.*$")
TRAEFIK = re.compile(r"^\S+T(\d\d:\d\d:\d\d)\S* (WRN|ERR|FTL) (.*)$")
HUB = re.compile(r"^\[([WEC]) \S+ (\d\d:\d\d:\d\d)\S* \S+ \S+\] (.*)$")
COLOURS = re.compile(r"\033\[[0-9;]*m")
# Said at each start, and meant: user names may hold any character.
KNOWN = "Traefik can reject some encoded characters"
BYTES_AT_ONCE = 65536
SAME_AGAIN_SECONDS = 10


def pointsman_line(line):
    found = POINTSMAN.match(line)
    if not found:
        return None
    clock, level, module, sentence = found.groups()
    if level == "INFO" and module.endswith("::guard") and "/probe/" in sentence:
        return None
    return f"{clock} {'' if level == 'INFO' else level + ' '}{FIELDS.sub('', sentence)}"


def traefik_line(line):
    found = KNOWN not in line and TRAEFIK.match(line)
    return found and f"{found.group(1)} {found.group(2)} {found.group(3)}"


def hub_line(line):
    found = HUB.match(line)
    return found and f"{found.group(2)} {found.group(1)} {found.group(3)}"


# etcd's are for who knows it well; they are in its file.
KINDS = {"pointsman": pointsman_line, "traefik": traefik_line, "hub": hub_line}


class Follower:
    """What is new in the logs of some children since the last look."""

    def __init__(self, children):
        self.children = children
        self.places = {}
        self.said = {}

    def skip(self):
        """Nothing that was written until now is news."""
        for name, child in self.children.items():
            with contextlib.suppress(OSError):
                self.places[name] = child.log.stat().st_size

    def news(self):
        """New lines worth showing, each with the name of its part."""
        for name, child in list(self.children.items()):
            read_line = KINDS.get(name.partition("-")[0])
            if read_line is None:
                continue
            with contextlib.suppress(OSError), open(child.log, "rb") as log:
                log.seek(self.places.get(name, 0))
                whole, newline, _ = log.read(BYTES_AT_ONCE).rpartition(b"\n")
                self.places[name] = self.places.get(name, 0) + len(whole) + len(newline)
                for line in whole.decode(errors="replace").splitlines():
                    text = read_line(COLOURS.sub("", line))
                    if text and not self._is_repetition(name, text):
                        yield name, text

    def _is_repetition(self, name, text):
        """Whether that part said the same, but for the time, a moment ago. Its file has all of it."""
        key, now = (name, text.partition(" ")[2]), time.monotonic()
        last = self.said.get(key)
        if last is not None and now - last < SAME_AGAIN_SECONDS:
            return True
        self.said[key] = now
        return False
