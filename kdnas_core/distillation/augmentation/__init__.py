"""Variants of a task's rows (TinyBERT, arXiv 1909.10351)."""
