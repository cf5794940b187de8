# SPDX-License-Identifier: Apache-2.0
"""Where the layers of any network sit, found by running it once.

A *site* is a layer that multiplies (convolution or fully connected), with what follows it alone:
BatchNorm, ReLU, max pool. Compression needs this to fold BatchNorm, to size layers for the cycle
model and to quantize outputs; lowering needs it to know which layer reads which.

A tensor is known by where its data lies and how often it was changed there, so that a flattened map
and an in-place ReLU still belong to their layer, and a sum written in place does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from quant.layers.winograd_layer import TapLayer

L = TypeVar("L", bound=nn.Module)
Layer = nn.Conv2d | nn.Linear | TapLayer
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
RELUS = (nn.ReLU, nn.ReLU6)
PASSING = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten)  # leave values alone in evaluation


@dataclass(frozen=True)
class Site:
    """A layer in its network.

    Members:
        name: dotted path of the module.
        source: site whose result, and nothing else, it reads; "input" for the network's input;
            None for anything else, such as a sum.
        in_channels, height, width: the map it reads; a fully connected layer reads the map that
            was flattened.
        out_channels: channels of its result.
        norm: dotted path of the BatchNorm that follows, if any.
        relu, pool: whether a ReLU, and a 2x2 max pool, follow.
    """

    name: str
    source: str | None
    in_channels: int
    out_channels: int
    height: int
    width: int
    norm: str | None = None
    relu: bool = False
    pool: bool = False


@dataclass(frozen=True)
class Trace:
    """All sites of a network in the order they ran, and each one's result after what follows."""

    sites: dict[str, Site]
    results: dict[str, Tensor]


class _Tracer:
    """Collects sites while a network runs; `owner` maps a tensor to the site that made it."""

    def __init__(self, entry: Tensor) -> None:
        self.sites: dict[str, Site] = {}
        self.results: dict[str, Tensor] = {}
        self.owner: dict[tuple[int, int], str] = {_place(entry): "input"}
        self.shapes: dict[str, torch.Size] = {"input": entry.shape}
        self.source: str | None = None
        self.kept: list[Tensor] = [entry]  # so that no address is used twice

    def enter(self, x: Tensor) -> None:
        """Note whose result a module is about to read: it may change it in place."""
        self.source = self.owner.get(_place(x))

    def leave(self, name: str, module: nn.Module, x: Tensor, y: Tensor) -> None:
        """Note what a module made of the input last entered."""
        source = self.source
        if isinstance(module, Layer):
            self.sites[name] = self._site(name, source, x, y)
            self._own(name, y)
        elif source in self.sites:
            keeps_size = isinstance(module, nn.AdaptiveAvgPool2d) and x.shape == y.shape
            if keeps_size or isinstance(module, PASSING):
                self._name(source, y)
            else:
                self._follow(source, name, module, y)

    def _site(self, name: str, source: str | None, x: Tensor, y: Tensor) -> Site:
        shape = x.shape
        if x.dim() == 2:
            before = self.shapes.get(source or "", shape)
            same = before.numel() == x.numel() and len(before) == 4
            shape = before if same else torch.Size((*x.shape, 1, 1))
        return Site(name, source, shape[1], y.shape[1], shape[2], shape[3])

    def _follow(self, source: str, name: str, module: nn.Module, y: Tensor) -> None:
        """Attach a module to the site it follows, if it is one of those known."""
        site = self.sites[source]
        if isinstance(module, NORMS) and site.norm is None and not site.relu:
            site = replace(site, norm=name)
        elif isinstance(module, RELUS) and not site.pool:
            site = replace(site, relu=True)
        elif isinstance(module, nn.MaxPool2d) and _is_pool(module) and not site.pool:
            site = replace(site, pool=True)
        else:
            self.owner.pop(_place(y), None)
            return
        self.sites[source] = site
        self._own(source, y)

    def _own(self, name: str, y: Tensor) -> None:
        self._name(name, y)
        self.results[name] = y
        if y.dim() == 4:
            self.shapes[name] = y.shape

    def _name(self, name: str, y: Tensor) -> None:
        """Note that a tensor holds a site's result, in whatever shape."""
        self.owner[_place(y)] = name
        self.kept.append(y)


def _place(x: Tensor) -> tuple[int, int]:
    """Where a tensor's data lies, and how often it was changed in place."""
    return x.data_ptr(), x._version


def _leaves(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that compute; what is inside a layer (quantizers) is the layer's own."""
    inside = ""
    for name, module in net.named_modules():
        if inside and name.startswith(inside):
            continue
        if isinstance(module, Layer):
            inside = f"{name}."
            yield name, module
        elif not list(module.children()):
            yield name, module


def _is_pool(module: nn.MaxPool2d) -> bool:
    """Whether a pool is the engine's: 2x2, stride 2, incomplete windows dropped."""
    size, stride = (
        v if isinstance(v, tuple) else (v, v) for v in (module.kernel_size, module.stride)
    )
    return size == stride == (2, 2) and module.padding == 0 and not module.ceil_mode


def _entering(tracer: _Tracer) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:  # noqa: ARG001 (torch's call)
        if inputs and isinstance(inputs[0], Tensor):
            tracer.enter(inputs[0])

    return hook


def _leaving(tracer: _Tracer, name: str) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and inputs and isinstance(inputs[0], Tensor):
            tracer.leave(name, module, inputs[0], output)

    return hook


def _run_hooked(net: nn.Module, x: Tensor, handles: Sequence[RemovableHandle]) -> None:
    """Run `net` on x in evaluation mode; then take the hooks off and restore its mode."""
    was_training = net.training
    try:
        net.eval()
        net(x)
    finally:
        net.train(was_training)
        for handle in handles:
            handle.remove()


@torch.no_grad()
def trace(net: nn.Module, x: Tensor) -> Trace:
    """Run `net` on x [n, c, h, w] in evaluation mode and return its sites; its mode is restored."""
    tracer = _Tracer(x)

    handles = []
    for name, module in _leaves(net):
        handles.append(module.register_forward_pre_hook(_entering(tracer)))
        handles.append(module.register_forward_hook(_leaving(tracer, name)))
    _run_hooked(net, x, handles)
    return Trace(tracer.sites, tracer.results)


def find_sites(net: nn.Module, shape: tuple[int, int, int]) -> dict[str, Site]:
    """Return the sites of a network for inputs [c, h, w]."""
    parameter = next(net.parameters())
    return trace(
        net, torch.zeros((1, *shape), dtype=parameter.dtype, device=parameter.device)
    ).sites


@torch.no_grad()
def visit_layers(
    net: nn.Module, layers: Sequence[L], x: Tensor, visit: Callable[[L, Tensor], None]
) -> None:
    """Run `net` on x in evaluation mode; call `visit(layer, input)` just before each layer runs.

    So every layer is visited with what the layers before it, already visited, give it.
    """

    def hook(layer: L, inputs: tuple[Tensor, ...]) -> None:
        visit(layer, inputs[0])

    handles = [layer.register_forward_pre_hook(hook) for layer in layers]
    _run_hooked(net, x, handles)
