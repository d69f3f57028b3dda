"""Bad calls of randn and rand."""

from __future__ import annotations

import numpy as np
import torch
from bad_call_row import MANY, META, Row

RANDOM = [
    Row("shape is a number", "randn", lambda k: {"shape": 5}, TypeError, ("shape must be", "5", "(64, 3, 32, 32)")),
    Row("shape is None", "randn", lambda k: {"shape": None}, TypeError, ("shape must be", "None")),
    Row("shape float", "rand", lambda k: {"shape": (2, 2.5)}, TypeError, ("shape must be", "2.5", "integers")),
    Row("shape negative", "randn", lambda k: {"shape": (2, -3)}, ValueError, ("shape", "negative", "(2, -3)")),
    Row("dtype int", "randn", lambda k: {"dtype": torch.int32}, TypeError, ("dtype must be", "float32", "torch.int32")),
    Row("dtype by name", "rand", lambda k: {"dtype": "float32"}, TypeError, ("dtype must be", "bfloat16")),
    Row(
        "too many elements",
        "randn",
        lambda k: {"shape": (1, MANY), "device": META},
        ValueError,
        (str(MANY), "elements", str(2**34)),
    ),
    Row("seed negative", "rand", lambda k: {"seed": -5}, ValueError, ("seed", "-5")),
    Row(
        "seed float tensor",
        "randn",
        lambda k: {"seed": torch.tensor(1.0)},
        ValueError,
        ("seed", "int64", "torch.float32"),
        lambda k: {"seed": torch.tensor(1)},
    ),
    Row("seed bool of NumPy", "randn", lambda k: {"seed": np.array(True)}, TypeError, ("seed must", "array(True)")),
    Row("seed array of a float", "rand", lambda k: {"seed": np.array(1.5)}, TypeError, ("seed must", "array(1.5)")),
    Row("seed of 5000 digits", "randn", lambda k: {"seed": 10**5000}, ValueError, ("seed", "an integer of 16610 bits")),
    Row("sample ids are one", "rand", lambda k: {"sample_ids": np.array(3)}, TypeError, ("sample_ids", "array(3)")),
    Row("draw of 33 bits", "randn", lambda k: {"draw": 2**32}, ValueError, ("draw", str(2**32))),
    Row("draw bool", "rand", lambda k: {"draw": False}, TypeError, ("draw must be an integer", "False")),
    Row("purpose negative", "randn", lambda k: {"purpose": -1}, ValueError, ("purpose", "-1", "0 to 255")),
    Row(
        "sample ids shape",
        "rand",
        lambda k: {"sample_ids": torch.tensor([[0], [1]])},
        ValueError,
        ("sample_ids", "(2, 1)"),
    ),
    Row("unknown impl", "rand", lambda k: {"impl": "cuda"}, ValueError, ("impl must be one of", "'cuda'")),
]
