"""The launcher: `python app.py`, `streamlit run app.py` or `uvicorn app:app`."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import server

app = st.App(
    Path(__file__).resolve().parent / "kdnas_core" / "dashboard" / "entry.py",
    lifespan=server.lifespan,
    routes=server.routes,
    middleware=server.middleware,
)

if __name__ == "__main__":
    server.main(app)
