# SPDX-License-Identifier: Apache-2.0
"""What to write instead of an operation that has no record, in any spelling of its name."""

from __future__ import annotations

import pytest

from quant.network.operations import FUNCTIONS, METHODS, MODULES
from quant.network.remedies import IMAGES, remedy_for


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("ZeroPad2d", "; set the padding of the layer behind it"),
        ("pad", "; set the padding of the layer behind it"),
        ("LayerNorm", "; use nn.BatchNorm2d right behind a layer"),
        ("chunk", "; give each part a layer of its own"),
        ("Clip", "; use nn.ReLU"),
        ("sum", "; use x.mean((2, 3))"),
        ("amax", "; use a max pool with a window of that size, such as nn.MaxPool2d(4, 2)"),
        ("max_pool2d_with_indices", "; use a plain max pool, which gives no indices"),
        ("GRU", ""),
    ],
)
def test_names_of_modules_functions_and_onnx_have_a_remedy(name: str, remedy: str) -> None:
    assert remedy_for(name, reads_images=False) == remedy


def test_only_arithmetic_of_images_is_taken_for_normalising() -> None:
    assert remedy_for("sub", reads_images=True) == f"; {IMAGES}"
    assert remedy_for("pad", reads_images=True) == "; set the padding of the layer behind it"


def test_nothing_that_runs_has_a_remedy() -> None:
    known = [kind.__name__ for kind in MODULES]
    known += [f if isinstance(f, str) else f.__name__ for f in (*FUNCTIONS, *METHODS)]
    assert [name for name in known if remedy_for(name, reads_images=False)] == []
