"""Values on their way between the grader and a student's process, and what is wrong with one, in words.

Everything travels as JSON: no pickle, so that whatever a hostile process sends is nothing but data.
"""

from __future__ import annotations

import base64
import math
import re

import numpy as np

DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
LARGEST = 20_000_000  # bytes of one array


class Fixture:
    """Stands in an argument list for something that cannot travel: a tiny model, a tokenizer, a function."""

    def __init__(self, name: str) -> None:
        self.name = name


class Other:
    """What a student returned that is no plain value: only the name of its type arrives."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def encode(value):
    """A value as what JSON can hold: numbers, text, lists, tuples, dicts, numpy arrays, torch tensors, fixtures."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$": "float", "value": str(value)}
    if type(value) in (list, tuple):
        return {"$": type(value).__name__, "items": [encode(item) for item in value]}
    if type(value) is dict:
        return {"$": "dict", "items": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, Fixture):
        return {"$": "fixture", "name": value.name}
    kind = "tensor" if type(value).__name__ in ("Tensor", "Parameter") else "array"
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() and value.dtype.itemsize < 4 else value).numpy()
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.name in DTYPES:
        return {"$": kind, "dtype": value.dtype.name, "shape": list(value.shape),
                "data": base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")}
    return {"$": "other", "kind": type(value).__name__[:80]}


def decode(value, fixtures=None, tensor=None):
    """The value that `encode` was given. fixtures: name -> object; tensor: array -> torch tensor, else arrays stay.

    Raises ValueError, KeyError or TypeError for anything that `encode` does not write.
    """
    if not isinstance(value, dict):
        if isinstance(value, (bool, int, float, str)) or value is None:
            return value
        raise TypeError("a bare list")
    kind = value["$"]
    if kind == "float":
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[value["value"]]
    if kind in ("list", "tuple"):
        items = [decode(item, fixtures, tensor) for item in value["items"]]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        return {decode(key): decode(item, fixtures, tensor) for key, item in value["items"]}
    if kind in ("array", "tensor"):
        if value["dtype"] not in DTYPES or len(value["data"]) > LARGEST:
            raise ValueError("an array that is too large, or of an unknown type")
        array = np.frombuffer(base64.b64decode(value["data"], validate=True), value["dtype"])
        array = array.reshape([int(n) for n in value["shape"]]).copy()
        return tensor(array) if tensor and kind == "tensor" else array
    if kind == "fixture":
        return fixtures[value["name"]]
    return Other(str(value["kind"]))


def difference(expected, got, tolerance: float = 1e-4, where: str = "the result") -> str:
    """What is wrong with a value, in one sentence for a student; "" if nothing is.

    Numbers may be Python's, numpy's or torch's, of any precision; lists and tuples are the same; two numbers agree when
    they differ by at most tolerance * max(1, |expected|). The expected value itself is not told.
    """
    def all_of(pairs) -> str:
        return next(filter(None, (difference(a, b, tolerance, f"{where}[{key!r}]") for key, a, b in pairs)), "")

    if isinstance(got, Other):
        return f"{where} is a {got.kind}, which is no plain value"
    if isinstance(expected, dict):
        if not isinstance(got, dict):
            return f"{where} should be a dict, and is {kind_of(got)}"
        if set(expected) != set(got):
            return f"{where} has the keys {sorted(map(str, got))}, and should have {sorted(map(str, expected))}"
        return all_of((key, expected[key], got[key]) for key in expected)
    if numeric(expected):
        return number_difference(np.asarray(expected), got, tolerance, where)
    got = got.tolist() if isinstance(got, (np.ndarray, np.generic)) else got
    if isinstance(expected, (list, tuple)):
        if not isinstance(got, (list, tuple)):
            return f"{where} should be a list or tuple, and is {kind_of(got)}"
        if len(expected) != len(got):
            return f"{where} has {len(got)} entries, and should have {len(expected)}"
        return all_of(zip(range(len(expected)), expected, got, strict=True))
    if type(expected) is not type(got):
        return f"{where} should be {kind_of(expected)}, and is {kind_of(got)}"
    return "" if got == expected else f"{where} is {short(got)}, which is not right"


def number_difference(expected: np.ndarray, got, tolerance: float, where: str) -> str:
    """`difference` for numbers and arrays of them."""
    if not numeric(got):
        return f"{where} should be {'numbers' if expected.shape else 'a number'}, and is {kind_of(got)}"
    got = np.asarray(got)
    if expected.shape != got.shape:
        return f"{where} has the shape {got.shape}, and should have {expected.shape}"
    a, b = expected.astype(float), got.astype(float)
    if (np.isnan(b) & ~np.isnan(a)).any():
        return f"{where} contains nan (not a number): a division by zero, or the logarithm of 0?"
    finite = np.isfinite(a)
    if (finite != np.isfinite(b)).any() or (a[~finite] != b[~finite]).any():
        return f"{where} has {(~np.isfinite(b)).sum()} infinite numbers, which are not where they should be"
    error = np.abs(a[finite] - b[finite])
    wrong = error > tolerance * np.maximum(1, np.abs(a[finite]))
    if not wrong.any():
        return ""
    off = "" if expected.dtype.kind in "iub" else f", by up to {error.max():.3g}"
    example = f"{b[finite][error.argmax()]:.6g}"
    return f"{where} is wrong in {wrong.sum()} of {a.size} numbers{off}; one is {example}" if a.shape else \
        f"{where} is {example}, which is not right{off.replace('by up to', 'by')}"


def numeric(value) -> bool:
    """Whether a value is a number, an array of numbers, or a (nested) list of numbers that makes one."""
    if isinstance(value, (bool, str)) or value is None:
        return False
    if isinstance(value, (int, float)):
        return True
    if isinstance(value, (list, tuple)):
        try:
            return len(value) > 0 and np.asarray(value).dtype.kind in "iuf"
        except ValueError:
            return False
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "iufb"


def kind_of(value) -> str:
    """What a value is, for people: "a list", "an array", "None"."""
    name = "array" if isinstance(value, (np.ndarray, np.generic)) else type(value).__name__
    return "None" if value is None else f"a{'n' if name[0] in 'aeiou' else ''} {name}"


def short(value) -> str:
    """A value in at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def plain(text, most: int = 300) -> str:
    """Text of a submission as it may stand in a report: at most `most` characters, all of which can be written."""
    return re.sub(r"[^\S\n]|[\x00-\x09\x0b-\x1f\x7f]|[\ud800-\udfff\ufffe\uffff]", " ", str(text)[:most])
