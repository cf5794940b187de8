# SPDX-License-Identifier: Apache-2.0
"""What a network costs to run and to store."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def parameters(net: nn.Module) -> int:
    """Return the number of trained parameters."""
    return sum(parameter.numel() for parameter in net.parameters())


def flops(net: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Return the multiply-accumulates of one image [c, h, w], which papers call FLOPs.

    Convolutions and linear layers count; BatchNorm, activations and pools do not. A network on the
    meta device is counted without computing it.
    """
    return sum(layer_flops(net, input_shape).values())


@torch.no_grad()
def layer_flops(net: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the multiply-accumulates of every convolution and linear layer by name."""
    counted: dict[str, int] = {}
    hooks = []

    def count(name: str, module: nn.Module, output: Tensor) -> None:
        per_output = module.weight[0].numel()  # operands of one output value
        counted[name] = counted.get(name, 0) + output.numel() * per_output

    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):

            def hook(module: nn.Module, _: object, output: Tensor, name: str = name) -> None:
                count(name, module, output)

            hooks.append(module.register_forward_hook(hook))
    like = next(net.parameters())
    was_training = net.training
    try:
        net.eval()(torch.zeros((1, *input_shape), dtype=like.dtype, device=like.device))
    finally:
        net.train(was_training)
        for handle in hooks:
            handle.remove()
    return counted
