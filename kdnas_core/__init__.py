"""KD-NAS Studio: choose and make small language models for a latency budget."""

__version__ = "0.1.0"
