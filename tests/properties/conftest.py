"""With the profile `fuzz` every property takes turns of new inputs, within bounds of memory."""

import pytest
from hypothesis import settings

from benchmarks import measure

TURNS = 16
"""Of each property. Hypothesis keeps all inputs of a turn in memory."""

PEAK = 256 * 2**20
"""Bytes that a turn may add to the memory of the process."""

GROWTH = 32 * 2**20
"""Bytes by which the process may grow between the fourth turn of a property and its last."""

held: dict[str, list[int]] = {}


@pytest.fixture(autouse=True)
def turn(request):
    """Fails a turn that takes too much memory. Needs Linux."""
    if not hasattr(request, "param"):
        yield
        return
    before = measure.restart_peak()
    yield
    peak = measure.resident_peak() - before
    sizes = held.setdefault(request.function.__qualname__, [])
    sizes.append(measure.restart_peak())
    assert peak <= PEAK, f"a turn took {peak >> 20} MiB"
    if len(sizes) == TURNS:
        grown = sizes[-1] - sizes[3]
        assert grown <= GROWTH, f"the process grew by {grown >> 20} MiB"


def pytest_generate_tests(metafunc):
    is_property = getattr(metafunc.function, "is_hypothesis_test", False)
    if is_property and settings.get_current_profile_name() == "fuzz":
        metafunc.parametrize("turn", range(TURNS), indirect=True)
