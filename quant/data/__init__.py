# SPDX-License-Identifier: Apache-2.0
"""Images and labels from any source, one interface: docs/data.md."""

from quant.data.augment import Augmentation, augment
from quant.data.folder import LazyImages
from quant.data.load import given_shape, input_shape, load_split, read_split
from quant.data.samples import (
    INPUT_BITS,
    INPUT_EXPONENT,
    Images,
    InputShape,
    Samples,
    Split,
    to_input,
    with_constant,
)

__all__ = [
    "INPUT_BITS",
    "INPUT_EXPONENT",
    "Augmentation",
    "Images",
    "InputShape",
    "LazyImages",
    "Samples",
    "Split",
    "augment",
    "given_shape",
    "input_shape",
    "load_split",
    "read_split",
    "to_input",
    "with_constant",
]
