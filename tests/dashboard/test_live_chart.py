from __future__ import annotations

import math

import pytest

from kdnas_core.dashboard.ui import live_chart
from kdnas_core.dashboard.ui.live_chart import as_zoom


@pytest.mark.parametrize(
    "given", [None, [], "1,2,3,4", [1, 2, 3], [1, 2, 3, math.nan], [1, 2, 3, math.inf], [1, 2, 3, "4"], 7]
)
def test_what_is_no_zoom_is_none(given: object) -> None:
    assert as_zoom(given) is None


def test_four_numbers_are_a_zoom() -> None:
    assert as_zoom([1, 2.5, 3, 4]) == (1, 2.5, 3, 4)


def test_the_library_of_the_charts_is_served_from_the_installed_package() -> None:
    [route] = live_chart.ROUTES
    assert route.path == "/plotly.min.js"
    assert "/plotly.min.js" in live_chart.SCRIPT
    assert "http" not in live_chart.SCRIPT  # it loads nothing from elsewhere
