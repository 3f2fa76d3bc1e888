"""`temaki.lease.waiting`: the fair order, in which contenders are served."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from temaki.lease.waiting import LONGEST_COURTESY, LONGEST_LOOK, SLOT, ahead, courtesy, look, serve


def rounds(tokens: list[str], served: dict[str, int], generation: int, times: int) -> tuple[list[str], dict[str, int]]:
    """Who takes it so many times, if all want it and whoever comes first gets it."""
    order = []
    for _ in range(times):
        first = min(tokens, key=lambda token: (ahead(served, token), token[:8] in served))
        generation += 1
        served = serve(served, first, generation)
        order.append(first)
    return order, served


@given(st.integers(1, 16), st.dictionaries(st.text(min_size=8, max_size=8), st.integers(0, 100), max_size=16))
def test_all_are_served_in_turn(contenders: int, before: dict[str, int]) -> None:
    """Up to sixteen, whoever had it before them: in any so many times in a row, each of them once.

    Nobody knows of a newcomer, so for its first time it may have to race with the one whose turn it is; here it wins.
    """
    tokens = [f"{number:08d} and more" for number in range(contenders)]
    order, _ = rounds(tokens, before, 100, 5 * contenders)
    for start in range(0, len(order), contenders):
        assert set(Counter(order[start : start + contenders]).values()) == {1}


def test_those_who_are_gone_are_forgotten() -> None:
    """When the others have been served about twice as often as there are names."""
    served: dict[str, int] = {}
    for generation in range(1, 9):
        served = serve(served, f"{generation}" * 8, generation)
    _, served = rounds(["aaaaaaaa", "bbbbbbbb"], served, 8, 20)
    assert set(served) == {"aaaaaaaa", "bbbbbbbb"}


def test_a_record_stays_small() -> None:
    """However many processes take part."""
    served: dict[str, int] = {}
    for generation in range(1, 1000):
        served = serve(served, f"{generation:08d}", generation)
    assert len(served) == 16


def test_who_comes_later_waits_longer_and_looks_less_often() -> None:
    """Within limits; a newcomer waits for nobody."""
    served = {f"{number:08d}": number for number in range(1, 11)}
    assert courtesy(served, "new") == 0
    assert look(served, "new") == SLOT
    assert [courtesy(served, f"{number:08d}") for number in (1, 2, 10)] == [0, SLOT, LONGEST_COURTESY]
    assert look(served, "00000010") == LONGEST_LOOK
