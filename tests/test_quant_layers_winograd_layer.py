# SPDX-License-Identifier: Apache-2.0
"""The float layers against direct convolution, which shares no code with them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from quant.layers.winograd_layer import Dense, DirectConv2d, Window, WinogradConv2d


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 3), (6, 9)])
def test_winograd_is_direct_convolution(m: int, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(m)
    x = torch.randn(2, 5, *size, generator=generator, dtype=torch.float64)
    kernel = torch.randn(7, 5, 3, 3, generator=generator, dtype=torch.float64)
    bias = torch.randn(7, generator=generator, dtype=torch.float64)
    layer = WinogradConv2d(5, 7, m).double()
    layer.load_spatial(kernel)
    layer.bias.data.copy_(bias)
    torch.testing.assert_close(layer(x), F.conv2d(x, kernel, bias, padding=1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("m", [2, 4])
def test_gradient_is_that_of_direct_convolution(m: int) -> None:
    generator = torch.Generator().manual_seed(m)
    x = torch.randn(1, 2, 6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64)
    layer = WinogradConv2d(2, 3, m).double()
    layer.load_spatial(kernel)
    weight = torch.randn(1, 3, 6, 5, generator=generator, dtype=torch.float64)
    (ours,) = torch.autograd.grad((layer(x) * weight).sum(), x)
    (direct,) = torch.autograd.grad((F.conv2d(x, kernel, padding=1) * weight).sum(), x)
    torch.testing.assert_close(ours, direct, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((1, 1), (1, 1), (0, 0)),
        ((1, 1), (2, 2), (0, 0)),
        ((7, 7), (2, 2), (3, 3)),
        ((3, 3), (2, 2), (1, 1)),
        ((1, 3), (1, 2), (0, 1)),
    ],
)
def test_direct_is_convolution(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 9, 8, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 5, *kernel, generator=generator, dtype=torch.float64)
    layer = DirectConv2d(5, 4, Window(kernel, stride, padding)).double()
    layer.load_spatial(weight)
    want = F.conv2d(x, weight, layer.bias, stride, padding)
    torch.testing.assert_close(layer(x), want, rtol=0, atol=1e-12)


def test_tap_gains_are_powers_of_two() -> None:
    for m in (2, 4):
        mantissa, _ = torch.frexp(WinogradConv2d(1, 1, m).tap_gain)
        assert bool((mantissa == 0.5).all())


def test_dense_flattens_channel_then_row_then_column() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 2, 5, generator=generator)
    layer = Dense(30, 6, 3)
    torch.nn.init.normal_(layer.weight, generator=generator)
    want = F.linear(x.flatten(1), layer.weight[:, :, 0], layer.bias)
    torch.testing.assert_close(layer(x), want)


def test_masked_weights_have_no_effect_and_no_gradient() -> None:
    layer = WinogradConv2d(8, 2, 2)
    torch.nn.init.ones_(layer.weight)
    layer.mask[:, 3] = 0
    layer(torch.ones(1, 8, 4, 4)).sum().backward()
    assert float(layer.u[:, 3].detach().abs().sum()) == 0
    assert float(layer.weight.grad[:, 3].abs().sum()) == 0
