"""Computes what the pages show, without Streamlit."""
