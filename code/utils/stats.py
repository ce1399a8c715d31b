"""How sure a share is that was measured on so many examples, and whether two differ."""

from __future__ import annotations


def accuracy_interval(right: int, of: int) -> dict:
    """Accuracy and its 95 % interval (Wilson 1927).

    accuracy_interval(8, 10) is about 0.8, [0.49, 0.94].
    Raises ValueError where there are no examples.
    """
    from scipy.stats import binomtest

    return {"accuracy": right / of,
            "interval": list(binomtest(right, of).proportion_ci(0.95, method="wilson"))}


def sign_test(only_a: int, only_b: int) -> float:
    """p-value of "a and b are equally often right" on the same tasks (McNemar's exact test, 1947).

    only_a, only_b: tasks that only the one got right, or only the other; the rest tells nothing.
    sign_test(0, 6) is 0.03125, sign_test(3, 3) and sign_test(0, 0) are 1.
    """
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
