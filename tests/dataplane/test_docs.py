"""The page about compatibility says what the list says."""

from table import PAGE, current


def test_the_page_is_current():
    assert PAGE.read_text() == current(), "run tests/dataplane/table.py --write"
