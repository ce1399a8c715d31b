"""How sure an accuracy is that was measured on so many examples."""

from __future__ import annotations


def accuracy_interval(right: int, of: int) -> dict:
    """Accuracy and its 95 % interval (Wilson 1927)."""
    from scipy.stats import binomtest

    return {"accuracy": right / of, "interval": list(binomtest(right, of).proportion_ci(0.95, method="wilson"))}
