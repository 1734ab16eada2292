"""The ledger, its table, and the page that shows both."""

import ledger
from devkit.places import ROOT
from faults import REGISTRY, missing
from history import Violation
from runner import Result, choose


def result(seed, faults, violations=()):
    return Result(seed, faults, calls=10, looks=20, recovery=1.5, gap=0.5, failed=1, violations=list(violations))


def test_it_grows_and_goes_on_where_it_ended(tmp_path):
    path = tmp_path / "ledger.tsv"
    book = ledger.Ledger(path, "abc")
    assert book.next_seed() == 1
    book.add(result(7, ["kill-etcd(1)", "etcd-down"]))
    book.add(result(8, ["etcd-down"], [Violation("stale", "x"), Violation("stale", "y")]))
    again = ledger.Ledger(path, "abc")
    assert again.next_seed() == 9
    first, second = ledger.read(path)
    assert (first["faults"], first["result"], second["result"]) == ("kill-etcd(1)+etcd-down", "ok", "stale")
    rows = ledger.table([first, second]).splitlines()
    assert "| etcd-down | 2 | 1 | 1.5 s | 0.5 s | 2 |" in rows
    assert "| kill-etcd | 1 | 0 | 1.5 s | 0.5 s | 1 |" in rows


def test_the_page_has_every_fault_and_the_table_of_the_ledger():
    page = (ROOT / "docs/chaos.md").read_text()
    assert ledger.describe(REGISTRY) in page, "run --summary docs/chaos-ledger.tsv --into docs/chaos.md"
    assert ledger.table(ledger.read(ROOT / "docs/chaos-ledger.tsv")) in page, "the same"


def test_a_seed_draws_the_same_faults_again():
    names = [name for name in REGISTRY if not missing(REGISTRY[name])]
    for seed in range(200):
        first, second = choose(seed, names)[0], choose(seed, names)[0]
        assert first == second
        assert len(first) == 1 or not any(fault.alone or fault.slow for fault in first)
    drawn = {fault.name for seed in range(1500) for fault in choose(seed, names)[0]}
    assert drawn == set(names)
