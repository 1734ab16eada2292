"""What the chart says of itself: README, notes, metadata."""

import json
import re

import pytest
import yaml
from cases import CASES, rendered
from devkit import chart_docs
from engine import CHART, ROOT, load_all, render

EXAMPLES = ROOT / "examples" / "z2jh"
ABOUT = yaml.safe_load((CHART / "Chart.yaml").read_text())
NOTED = ABOUT["annotations"]
README = (CHART / "README.md").read_text()
VALUES = (CHART / "values.yaml").read_text()
CARGO_VERSION = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)


def example(name):
    return yaml.safe_load((EXAMPLES / name).read_text())


def blocks(text):
    return re.findall(r"```yaml\n(.*?)```", text, re.S)


# The README


def test_the_table_of_values_is_fresh():
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert chart_docs.readme(README, VALUES, schema) == README, "write it anew with: make chart-accept"


def test_every_value_has_a_sentence():
    for value in chart_docs.values_of(VALUES):
        assert value.comment, f"values.yaml says nothing of {value.name}: write a line `# -- …` above it"
        assert value.comment.endswith("."), f"{value.name}: {value.comment}"


def test_a_value_without_a_sentence_is_seen():
    found = chart_docs.values_of("a:\n  # -- What it is,\n  # and more.\n  b: 1\n  # Not for the README.\n  c: {d: 2}\n")
    assert [(v.name, v.default, v.comment) for v in found] == [
        ("a.b", 1, "What it is, and more."), ("a.c", {"d": 2}, None),
    ]  # fmt: skip
    shared = chart_docs.values_of("pointsman:\n  # -- How many.\n  replicas: 1\ntraefik:\n  replicas: 2\n")
    assert shared[1].comment == "How many."


def test_its_recipes_are_those_of_the_examples():
    recipes = {}
    for block in blocks(README):
        found = re.match(r"# (recipe . \w+|recipe ., \w+)\n", block)
        if found:
            recipes[found.group(1)] = yaml.safe_load(block)
    assert recipes == {
        "recipe A, z2jh": example("beside.yaml"),
        "recipe B, z2jh": example("adopt.yaml"),
        "recipe B, Pointsman": example("adopt-pointsman.yaml"),
    }


def test_recipes_are_short():
    for block in blocks(README):
        if block.startswith("# recipe"):
            assert len([line for line in block.splitlines() if line and not line.startswith("#")]) < 10


@pytest.mark.parametrize("block", [b for b in blocks(README) if not re.match(r"# recipe ., z2jh", b)])
def test_its_other_values_are_taken(block):
    render(yaml.safe_load(block))


def test_its_links_lead_somewhere():
    for path in re.findall(r"\]\((\.\./[^)#]+)", README):
        assert (CHART / path).exists(), path


# The notes


def pasted(notes, first):
    """The values in the notes that begin with this line, up to the next empty one."""
    after = notes[notes.index(f"\n{first}\n") + 1 :]
    return yaml.safe_load(after.split("\n\n")[0])


def test_notes_have_the_values_of_recipe_a():
    notes = rendered("default").notes
    assert pasted(notes, "hub:") == example("beside.yaml")
    older = pasted(notes, "  chp:")
    whole = example("beside.yaml")
    whole["proxy"].update(older)
    assert whole == example("beside-older.yaml")


def test_notes_have_the_values_of_recipe_b():
    notes = render(EXAMPLES / "adopt-pointsman.yaml").notes
    assert pasted(notes, "proxy:") == example("adopt.yaml")
    assert "release jhub" in notes
    assert "api_url" not in notes


def test_notes_name_what_was_rendered():
    seen = render(release="other", namespace="somewhere", sets={"auth.existingSecret.name": "mine"})
    (api,) = [s for s in seen.of_kind("Service") if s["metadata"]["name"].endswith("-api")]
    assert f"api_url: http://{api['metadata']['name']}:{api['spec']['ports'][0]['port']}" in seen.notes
    for command in re.findall(r"kubectl --namespace (\S+) .*?(?:deployment/|service )(\S+)", seen.notes):
        namespace, name = command
        assert namespace == "somewhere"
        assert any(t["metadata"]["name"] == name for t in seen.of_kind("Service", "Deployment"))
    assert "helm --namespace somewhere test other" in seen.notes
    assert "of Secret mine" in seen.notes


@pytest.mark.parametrize("case", CASES)
def test_notes_hold_no_token_and_can_be_read(case):
    notes = rendered(case).notes
    assert "trying-out-" not in notes
    assert "<no value>" not in notes and "\n\n\n" not in notes
    assert all(len(line) <= 120 and line == line.rstrip() for line in notes.splitlines())


# Chart.yaml


def test_versions_agree():
    assert ABOUT["appVersion"] == CARGO_VERSION
    images = {image["name"]: image["image"] for image in yaml.safe_load(NOTED["artifacthub.io/images"])}
    assert images["pointsman"].endswith(f":{CARGO_VERSION}")


def test_the_list_of_images_is_what_runs():
    listed = {image["image"].removeprefix("docker.io/library/") for image in yaml.safe_load(NOTED["artifacthub.io/images"])}
    text = str(rendered("default").everything)
    assert listed == set(re.findall(r"'image': '([^']+)'", text))


def test_artifact_hub_is_told_what_it_asks_for():
    assert NOTED["artifacthub.io/license"] == re.search(r'license = "(.+)"', (ROOT / "pyproject.toml").read_text()).group(1)
    assert NOTED["artifacthub.io/prerelease"] in ("true", "false")
    assert NOTED["artifacthub.io/category"] == "networking"
    for change in yaml.safe_load(NOTED["artifacthub.io/changes"]):
        assert set(change) == {"kind", "description"}
        assert change["kind"] in ("added", "changed", "deprecated", "removed", "fixed", "security")
        assert change["description"].endswith(".")
    for link in yaml.safe_load(NOTED["artifacthub.io/links"]):
        assert set(link) == {"name", "url"} and link["url"].startswith("https://")
    assert ABOUT["maintainers"] and ABOUT["keywords"] and ABOUT["description"]


def test_what_a_package_needs_is_not_ignored():
    ignored = {line for line in (CHART / ".helmignore").read_text().splitlines() if line and not line.startswith("#")}
    assert ignored == {"ci/", "*.orig", "*.swp", ".DS_Store"}
    assert load_all((CHART / "alerts.yaml").read_text())
