# SPDX-License-Identifier: Apache-2.0
"""Quantized sums: exact in float64, one rounding, a grid of their own, aligned to what they add."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quant.layers.bit_widths import BitWidths
from quant.layers.quant_add import QuantAdd
from quant.layers.quantizers import exponents, scale_of, set_exponents
from quant.network.calibrate import ADD_SPREAD, calibrate
from quant.network.network import Network
from quant.network.rewrite import tap_layers, to_quantized, to_winograd
from winnow.fixed_point import int_range, requantize


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(("bits", "ey"), [(8, -3), (8, -9), (4, 0)])
def test_sum_is_that_of_the_contract(bits: int, ey: int, relu: bool) -> None:
    generator = torch.Generator().manual_seed(bits)
    a = torch.randint(-128, 128, (2, 3, 20, 20), generator=generator)
    b = torch.randint(0, 256, (2, 3, 20, 20), generator=generator)
    add = QuantAdd(bits, relu=relu).double()
    set_exponents(add.output_quant, torch.tensor([ey]))
    got = add(a.double() * 2.0**-7, b.double() * 2.0**-4) * 2.0**-ey
    aligned = a.numpy() + (b.numpy() << 3)
    want = requantize(aligned, ey + 7, *int_range(bits, signed=not relu))
    np.testing.assert_array_equal(got.numpy(), want)
    assert not any(parameter.requires_grad for parameter in add.parameters())


def test_values_that_are_not_clamped_have_a_gradient() -> None:
    add = QuantAdd(8, relu=True)
    set_exponents(add.output_quant, torch.tensor([-4]))
    x = torch.tensor([-9.0, 1.0, 3.3, 90.0], requires_grad=True)
    add(x, torch.ones(4)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.fc = nn.Linear(48, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        return self.fc((self.b(y) + y).flatten(1))


@pytest.mark.parametrize("branch", [1.0, 2.0**-12, 0.0])
def test_branch_that_gives_nearly_nothing_gets_a_grid_that_the_engine_can_align(
    branch: float,
) -> None:
    torch.manual_seed(0)
    module = Residual().eval()
    for parameter in module.b.parameters():
        parameter.data.mul_(branch)
    net = to_winograd(Network.of(module, (3, 4, 4)), 2)
    widths = {name: BitWidths(8, 8, 8, relu=name == "a") for name in tap_layers(net)}
    made = to_quantized(net, widths | {"fc": BitWidths(8, 8, None)}, 8)
    calibrate(made, torch.rand(8, 3, 4, 4))
    add = made.get_submodule("add")
    assert isinstance(add, QuantAdd)
    assert not add.relu
    found = [int(exponents(scale_of(made.get_submodule(n).output_quant))) for n in ("b", "add")]
    assert found[1] - found[0] <= ADD_SPREAD
    if branch == 2.0**-12:
        assert found[1] - found[0] == ADD_SPREAD
