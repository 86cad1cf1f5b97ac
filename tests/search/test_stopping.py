from __future__ import annotations

import pytest

from kdnas_core.search.stopping import LITTLE, Outlook


def outlook(episode: int, gain: float | None, before: float | None = None) -> Outlook:
    return Outlook(episode, gain, (0.1,), before)


@pytest.mark.parametrize(
    ("gain", "before", "ends"),
    [
        (LITTLE / 2, LITTLE / 2, True),
        (LITTLE / 2, LITTLE * 2, False),
        (LITTLE * 2, LITTLE / 2, False),
        (LITTLE / 2, None, False),
        (None, LITTLE / 2, False),
    ],
)
def test_no_gain_is_expected_once_two_outlooks_in_a_row_say_so(
    gain: float | None, before: float | None, ends: bool
) -> None:
    assert outlook(2, gain, before).no_gain == ends


def test_an_outlook_knows_the_gain_expected_an_episode_before() -> None:
    assert outlook(2, 0.1).after(outlook(1, 0.2)).gain_before == 0.2
    assert outlook(2, 0.1).after(None).gain_before is None
    assert outlook(3, 0.1).after(outlook(1, 0.2)).gain_before is None, "another episode lies between"


def test_a_search_that_is_resumed_knows_it_too() -> None:
    assert outlook(2, 0.1).after(outlook(2, 0.1, before=0.2)).gain_before == 0.2
