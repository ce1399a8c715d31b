"""Accuracy and F1 as a metric of the `evaluate` library, whose own ones need the Hub."""

from __future__ import annotations

import tempfile

import datasets
import evaluate
from sklearn.metrics import accuracy_score, f1_score


class AccuracyF1(evaluate.Metric):
    """Share of right answers, and F1 of label 1: 2 * precision * recall / (precision + recall)."""

    def _info(self):
        label = datasets.Value("int32")
        return evaluate.MetricInfo(
            description="Accuracy, and the F1 score of label 1.", citation="",
            inputs_description="predictions and references: lists of 0 and 1 of the same length",
            features=datasets.Features({"predictions": label, "references": label}))

    def _compute(self, predictions, references):
        return {"accuracy": float(accuracy_score(references, predictions)),
                "f1": float(f1_score(references, predictions, zero_division=0))}


def accuracy_f1(predictions, references) -> dict[str, float]:
    """{"accuracy": ..., "f1": ...} of predicted and true labels.

    `evaluate.load` would copy this file into the user's cache, and a metric makes a folder there:
    neither is possible where the cache is read-only, and neither is needed.
    """
    with tempfile.TemporaryDirectory() as folder:
        metric = AccuracyF1(keep_in_memory=True, cache_dir=folder)
        return metric.compute(predictions=predictions, references=references)
