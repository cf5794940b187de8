# SPDX-License-Identifier: Apache-2.0
"""Layers whose weights live where the engine multiplies: they stand in for `nn` layers.

All are `input_transform` (input -> operands V per tap), one matrix product per tap, and
`output_transform` (sums M -> output), so that training, pruning and quantization treat them alike.
Direct convolutions and dense layers have one tap and the identity for both transforms.

    V [taps, k, p]    U [oc, k, taps]    M = U V [taps, oc, p]

`k` are the operands summed over, `p` the tiles of all images. Lavin & Gray 2016, eq. 12. In memory
the channels are innermost (`channels_last`), so that every copy moves whole pixels. Where a weight
sits within its input channel is its *position*: the tap of a Winograd convolution, the place
in the kernel of a direct one, the pixel of a dense layer. In a convolution in groups an output sums
over the operands of its own group, and U holds those alone: V has groups * k of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.layers.patches import patches
from winnow.window import Axis
from winnow.winograd import winograd


class TapLayer(nn.Module):
    """Base of these layers.

    The trained parameter is `weight` [oc, k, taps]; the weight of the sums is
    `U = weight * tap_gain * mask`. `tap_gain` [taps] holds powers of two that give all taps a like
    size, which gradient steps of one size need.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    tap_gain: Tensor
    mask: Tensor
    groups: int = 1

    def __init__(
        self, in_channels: int, out_channels: int, operands: int, tap_gain: Tensor
    ) -> None:
        """Make a layer whose outputs sum over `operands` values each."""
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        shape = (out_channels, operands, len(tap_gain))
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("tap_gain", tap_gain)
        self.register_buffer("mask", torch.ones(shape))

    @property
    def u(self) -> Tensor:
        """Weights of the sums, [oc, k, taps]."""
        return self.weight * self.tap_gain * self.mask

    @torch.no_grad()
    def set_u(self, u: Tensor) -> None:
        """Store weights [oc, k, taps]; entries outside the mask are lost."""
        self.weight.copy_(u / self.tap_gain * self.mask)

    @property
    def gram(self) -> Tensor:
        """Energy of the output per pair of sums M, [taps, taps]: |Y|^2 = M^T gram M."""
        raise NotImplementedError

    @property
    def row_length(self) -> int:
        """Length of the rows that are cut into sub-rows: the input channels of a group."""
        return self.in_channels // self.groups

    def by_channel(self, u: Tensor) -> Tensor:
        """Return weights [oc, k, taps] as rows that are cut into sub-rows, [oc, c, positions]."""
        return u.reshape(len(u), self.row_length, -1)

    def input_transform(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        """Return the operands V [taps, k, p] of an input [n, c, h, w], times `gain` [taps]."""
        raise NotImplementedError

    def output_transform(self, sums: Tensor, like: Tensor) -> Tensor:
        """Return the output [n, oc, ...] of sums M [taps, oc, p] of input `like`."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return add_bias(
            self.output_transform(tap_sums(self.u, self.input_transform(x), self.groups), x),
            self.bias,
        )


def add_bias(y: Tensor, bias: Tensor) -> Tensor:
    """Return y [n, oc, ...] plus a bias per channel."""
    return y + bias.view(-1, *(1,) * (y.dim() - 2))


def tap_sums(u: Tensor, v: Tensor, groups: int = 1) -> Tensor:
    """Return M [taps, oc, p] = sum over k of U [oc, k, taps] * V [taps, groups * k, p].

    The outputs, and the operands, of a group are neighbours.
    """
    if groups == 1:
        return torch.bmm(v.transpose(1, 2), u.permute(2, 1, 0)).transpose(1, 2)
    taps, operands, tiles = v.shape
    apart = v.transpose(1, 2).reshape(taps, tiles, groups, operands // groups).transpose(1, 2)
    weights = u.permute(2, 1, 0).reshape(taps, -1, groups, len(u) // groups).transpose(1, 2)
    return torch.matmul(apart, weights).transpose(2, 3).flatten(1, 2)


class WinogradConv2d(TapLayer):
    """3x3 convolution, stride 1, zero padding 1, as F(m, 3); k = input channels."""

    input_kron: Tensor
    output_kron: Tensor

    def __init__(self, in_channels: int, out_channels: int, m: int, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, in_channels // groups, _tap_gain(m))
        self.m, self.groups = m, groups
        matrices = winograd(m)
        self.register_buffer("input_kron", torch.tensor(matrices.input_kron).float())
        self.register_buffer("output_kron", torch.tensor(matrices.output_kron).float())

    @torch.no_grad()
    def load_spatial(self, kernel: Tensor) -> None:
        """Set U = G g G^T from a kernel g [oc, ic / groups, 3, 3]."""
        g = torch.tensor(winograd(self.m).g, device=kernel.device)
        u = torch.einsum("ij,ocjk,lk->ocil", g, kernel.double(), g).flatten(2)
        self.set_u(u.to(self.weight.dtype))

    @property
    def gram(self) -> Tensor:
        return self.output_kron.t() @ self.output_kron

    def input_transform(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        kron = self.input_kron if gain is None else self.input_kron * gain[:, None]
        v = kron @ patches(x, self.m)  # taps, n * rows * columns * c
        return v.view(len(kron), -1, x.shape[1]).transpose(1, 2)

    def output_transform(self, sums: Tensor, like: Tensor) -> Tensor:
        m = self.m
        n, _, height, width = (int(edge) for edge in like.shape)
        rows, columns = -(-height // m), -(-width // m)
        y = self.output_kron @ sums.transpose(1, 2).flatten(1)
        y = y.view(m, m, n, rows, columns, self.out_channels).permute(2, 3, 0, 4, 1, 5)
        y = y.reshape(n, rows * m, columns * m, self.out_channels)
        return y[:, :height, :width].permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Window:
    """Kernel size, stride and zero padding of a convolution, each (rows, columns)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """The same along rows and along columns."""
        rows, columns = zip(self.kernel, self.stride, self.padding, self.padding, strict=True)
        return Axis(*rows), Axis(*columns)


class DirectConv2d(TapLayer):
    """Any other convolution; k = (input channel, place in the kernel)."""

    def __init__(
        self, in_channels: int, out_channels: int, window: Window, groups: int = 1
    ) -> None:
        operands = in_channels // groups * window.kernel[0] * window.kernel[1]
        super().__init__(in_channels, out_channels, operands, torch.ones(1))
        self.window, self.groups = window, groups

    @torch.no_grad()
    def load_spatial(self, kernel: Tensor) -> None:
        """Take over a kernel [oc, ic / groups, rows, columns]."""
        self.set_u(kernel.flatten(1)[:, :, None])

    @property
    def gram(self) -> Tensor:
        return torch.ones_like(self.tap_gain)[:, None]

    def input_transform(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        w = self.window
        x = x if gain is None else x * gain
        if w.kernel == (1, 1) and w.padding == (0, 0):
            operands = x[:, :, :: w.stride[0], :: w.stride[1]].flatten(2)
        else:
            operands = F.unfold(x, w.kernel, padding=w.padding, stride=w.stride)  # n, k, pixels
        return operands.transpose(0, 1).flatten(1).unsqueeze(0)

    def output_transform(self, sums: Tensor, like: Tensor) -> Tensor:
        w = self.window
        height, width = (
            (like.shape[2 + i] + 2 * w.padding[i] - w.kernel[i]) // w.stride[i] + 1
            for i in range(2)
        )
        return sums[0].view(self.out_channels, len(like), height, width).transpose(0, 1)


class UnrolledConv2d(DirectConv2d):
    """A direct convolution whose rows are all of k: a sub-row is 8 of it, at one position.

    It has no groups.
    """

    @property
    def row_length(self) -> int:
        return int(self.weight.shape[1])


class Dense(TapLayer):
    """Fully connected layer over a map flattened in (c, h, w) order, [n, oc]; k = c * h * w.

    `in_channels` are those of the map.
    """

    def __init__(self, operands: int, out_channels: int, in_channels: int) -> None:
        super().__init__(in_channels, out_channels, operands, torch.ones(1))

    @torch.no_grad()
    def load_spatial(self, matrix: Tensor) -> None:
        """Take over a matrix [oc, k]."""
        self.set_u(matrix[:, :, None])

    @property
    def gram(self) -> Tensor:
        return torch.ones_like(self.tap_gain)[:, None]

    def input_transform(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        x = x if gain is None else x * gain
        return x.flatten(1).t().unsqueeze(0)

    def output_transform(self, sums: Tensor, like: Tensor) -> Tensor:  # noqa: ARG002 (one pixel always)
        return sums[0].t()


def _tap_gain(m: int) -> Tensor:
    """Powers of two near 1 / (|column of A| |row of B|): how large a tap's weights should be."""
    matrices = winograd(m)
    reach = np.linalg.norm(matrices.a_t, axis=0) * np.linalg.norm(matrices.b_t, axis=1)
    edge = reach[0] / reach * np.linalg.norm(matrices.g, axis=1)[0]
    return torch.tensor(2.0 ** np.log2(np.outer(edge, edge)).round()).float().flatten()
