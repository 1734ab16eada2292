"""What docs/installation.md says is true of the program: its Python loads, and its table is the class."""

import json
import re
import subprocess

from conftest import BARE_PATH, ROOT, hub_python

PAGE = (ROOT / "docs/installation.md").read_text()
UNIT = (ROOT / "examples/pointsman.service").read_text()

# In a hub's Python: the settings of a configuration that are not known to any class that it concerns.
UNKNOWN = """
import json, sys
from jupyterhub.app import JupyterHub
from traitlets.config import Config
from pointsman.proxy import PointsmanProxy

known = {each.__name__: set(each.class_trait_names(config=True)) for each in [JupyterHub, *PointsmanProxy.mro()[:2]]}
unknown = []
for block in json.load(sys.stdin):
    c = Config()
    exec(block, {"c": c})
    unknown += [f"{name}.{key}" for name, keys in c.items() for key in keys if key not in known.get(name, ())]
print(json.dumps([unknown, sorted(PointsmanProxy.class_trait_names(flag=bool))]))
"""


def in_a_hub(blocks):
    done = subprocess.run(
        [hub_python(6), "-c", UNKNOWN],
        input=json.dumps(blocks),
        env={**BARE_PATH, "PYTHONPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_setting_in_the_page_exists():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len(blocks) >= 4
    assert in_a_hub(blocks)[0] == []
    assert in_a_hub(["c.PointsmanProxy.data_folder = 'x'"])[0] == ["PointsmanProxy.data_folder"]


def test_the_table_lists_the_settings_of_the_class():
    table = PAGE.partition("| `c.PointsmanProxy.` |")[2].partition("\n\n")[0]
    first_column = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    listed = {word for cell in first_column for word in re.findall(r"`(\w+)`", cell)}
    assert listed == {*in_a_hub([])[1], "command", "extra_args"}


def test_the_unit_and_the_page_name_the_same_files():
    for name in ("/opt/pointsman/bin/p", "/etc/pointsman/pointsman.toml", "/etc/pointsman/token", "/var/lib/pointsman"):
        assert name in PAGE and name in UNIT, name
