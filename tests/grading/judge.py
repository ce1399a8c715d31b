"""Each case of a submission is a pytest test. Run by grade.py, in the trusted process, over values that came back."""

from __future__ import annotations

import pytest
from sandbox import WHY
from values import decode, difference, plain


def test_case(case, expected, answers, points, record_property):
    """The submission's value is what the reference solution's is."""
    number, reply = answers
    record_property("task", case.function)
    record_property("points", points)
    if number in reply.missing:
        pytest.fail("not written yet", pytrace=False)
    if number in reply.errors:
        pytest.fail(f"it raised {reply.errors[number]}", pytrace=False)
    if number not in reply.values:
        before = number - 1 in {-1, *reply.values, *reply.errors}
        pytest.fail(WHY.get(reply.state, f"it was {reply.state}") if before else
                    "it was not tried, since an earlier call of this task did not come back", pytrace=False)
    try:
        value = decode(reply.values[number])
        problem = case.check(expected, value) if case.check else difference(expected, value, case.tolerance)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError, MemoryError):
        problem = "it returned something that cannot be read"
    if problem:
        pytest.fail(plain(problem), pytrace=False)
