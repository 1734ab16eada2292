"""The comparison itself: it must see what differs, what is not listed, and what is listed in vain."""

from compare import compared, differing, show
from differences import Difference
from rig.cases import Case

CASE = Case("a case", "plain", lambda world: {})


def listed(chp, pointsman):
    return {"field": Difference("reason", "plain: a case", "field", chp, pointsman)}


def test_equal_observations_have_no_differences():
    assert differing({"a": "1", "b": "2"}, {"b": "2", "a": "1"}) == {}


def test_a_field_that_only_one_has_differs():
    assert differing({"a": "1"}, {}) == {"a": ("1", "(nothing)")}


def test_a_proxy_that_does_not_start_differs_in_its_start_only():
    assert differing({"a": "1"}, {"start": "refused: no"}) == {"start": ("starts", "refused: no")}


def test_what_is_listed_exactly_is_no_problem():
    assert compared(CASE, {"field": ("1", "2")}, listed("1", "2")) == []


def test_what_is_not_listed_or_listed_otherwise_is_one():
    assert compared(CASE, {"field": ("1", "2")}, {})
    assert compared(CASE, {"field": ("1", "3")}, listed("1", "2"))


def test_what_is_listed_in_vain_is_one():
    assert compared(CASE, {}, listed("1", "2"))


def test_values_are_shown_as_short_texts():
    assert [show(value) for value in (True, None, b"x", [1, None], "")] == [
        "yes",
        "(nothing)",
        "x",
        "1, (nothing)",
        "(empty)",
    ]
    assert len(show("x" * 500)) < 200
