"""Another name for align.progress, for align/models/training.py."""

from align.progress import Progress

__all__ = ["Progress"]
