"""The paths of the pages, for links between them."""

from __future__ import annotations

from pathlib import Path

_PAGES = Path(__file__).resolve().parents[3] / "pages"

HOME = _PAGES / "home.py"
NEW_SEARCH = _PAGES / "new_search.py"
RUN = _PAGES / "run.py"
CANDIDATE = _PAGES / "candidate.py"
STUDENT = _PAGES / "student.py"
LEADERBOARD = _PAGES / "leaderboard.py"
COMPARE = _PAGES / "compare.py"
