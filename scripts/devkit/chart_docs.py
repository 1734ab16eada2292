"""The table of values in the chart's README, from the comments of its values.yaml.

A comment that begins with `# --` stands right above its value, and may go on for some lines. A value of `traefik`,
`etcd` or `tests` without one means the same as that of `pointsman` with the same name.
"""

import json
from dataclasses import dataclass

import yaml

MARKER = "<!-- From here on scripts/chart-docs writes, from values.yaml. -->"
# Where a name means the same in several parts, it is explained in the first.
EXPLAINS = "pointsman"
EXPLAINED = ("traefik", "etcd", "tests")


@dataclass
class Value:
    path: tuple
    default: object
    comment: str | None

    @property
    def name(self):
        return ".".join(self.path)


def comment_above(lines, number):
    """The text of the comment that ends above a line (counted from 0), or None if it isn't for the README."""
    found = []
    while number > 0 and lines[number - 1].strip().startswith("#"):
        number -= 1
        found.insert(0, lines[number].strip().lstrip("#").strip())
    starts = [place for place, text in enumerate(found) if text.startswith("-- ")]
    if not starts:
        return None
    return " ".join([found[starts[-1]][3:], *found[starts[-1] + 1 :]])


def values_of(text):
    """Every value of a values.yaml, in its order. A map with a comment of its own is one value, as is one that is empty."""
    lines = text.splitlines()

    def walk(node, path):
        for key, value in node.value:
            here = (*path, key.value)
            comment = comment_above(lines, key.start_mark.line)
            if comment is None and here[0] in EXPLAINED:
                comment = explained.get((EXPLAINS, *here[1:]))
            block = isinstance(value, yaml.MappingNode) and value.value and not value.flow_style
            if block and comment is None:
                yield from walk(value, here)
            else:
                found = Value(here, yaml.safe_load(yaml.serialize(value)), comment)
                explained[here] = comment
                yield found

    explained = {}
    return list(walk(yaml.compose(text), ()))


def kind_of(value, schema):
    """What the schema takes for a value, in a word or two."""
    node = schema
    for name in value.path:
        node = node.get("properties", {}).get(name, {})
    if "enum" in node:
        return "one of " + ", ".join(f"`{word}`" if word else "nothing" for word in node["enum"])
    kinds = [part["type"] for part in node["anyOf"]] if "anyOf" in node else node.get("type", "any")
    words = {"object": "map", "array": "list", "boolean": "true or false", "integer": "number", "string": "text"}
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(words.get(kind, kind) for kind in kinds)


def table(text, schema):
    """The Markdown table of all values."""
    rows = ["| Value | Type | Default | What it is |", "|---|---|---|---|"]
    for value in values_of(text):
        default = json.dumps(value.default, ensure_ascii=False).replace("|", "\\|")
        comment = (value.comment or "").replace("|", "\\|")
        rows.append(f"| `{value.name}` | {kind_of(value, schema)} | `{default}` | {comment} |")
    return "\n".join(rows) + "\n"


def readme(present, text, schema):
    """The README with a fresh table; what is written by hand stays."""
    written, marker, _ = present.partition(MARKER)
    if not marker:
        raise SystemExit(f"README.md of the chart has no line: {MARKER}")
    return f"{written}{MARKER}\n\n## Values\n\n{table(text, schema)}"
