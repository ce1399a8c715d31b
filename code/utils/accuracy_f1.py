"""Accuracy and F1 as a local metric for `evaluate.load`, which needs the Hub for its own.

evaluate copies this file elsewhere and reads its imports as text, so each stands on a line of its own.
"""

import datasets
import evaluate
from sklearn.metrics import accuracy_score
from sklearn.metrics import f1_score


class AccuracyF1(evaluate.Metric):
    """Share of right answers, and the F1 of label 1: 2 * precision * recall / (precision + recall)."""

    def _info(self):
        return evaluate.MetricInfo(
            description="Accuracy, and the F1 score of label 1.",
            citation="",
            inputs_description="predictions and references: lists of 0 and 1 of the same length",
            features=datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("int32")}),
        )

    def _compute(self, predictions, references):
        return {
            "accuracy": float(accuracy_score(references, predictions)),
            "f1": float(f1_score(references, predictions, zero_division=0)),
        }
