from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from kdnas_core.architecture import LayerSource
from kdnas_core.dashboard.model_page import cut_section


def test_each_student_layer_is_told_with_the_teacher_layer_and_heads_it_was_cut_from() -> None:
    table = cut_section.table((LayerSource(2, (1, 4, 12)), LayerSource(6, (3,))))
    assert list(table["Student layer"]) == [1, 2]
    assert list(table["Teacher layer"]) == [2, 6]
    assert list(table["Heads"]) == ["1, 4, 12", "3"]


def test_a_source_reads_back_from_what_is_kept() -> None:
    assert LayerSource.from_dict({"layer": 3, "heads": [2, 5]}) == LayerSource(3, (2, 5))


@pytest.mark.parametrize("origin", ["teacher", "supernet"])
def test_the_heading_says_what_a_student_was_cut_out_of(origin: str) -> None:
    def page(origin: str) -> None:
        from kdnas_core.architecture import LayerSource
        from kdnas_core.dashboard.model_page import cut_section

        cut_section.show([LayerSource(2, (1, 4, 12))], origin)

    app = AppTest.from_function(page, args=(origin,)).run()
    assert [box.label for box in app.expander] == [f"Cut out of the {origin}"]
