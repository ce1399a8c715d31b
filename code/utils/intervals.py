"""Moved to utils.stats."""

from utils.stats import accuracy_interval  # noqa: F401
