# SPDX-License-Identifier: Apache-2.0
"""Read any `nn.Module` as a graph, by symbolic tracing (torch.fx), without running it.

    self.fc(F.relu(self.conv(x)).flatten(1))
    -> conv = Conv(input)   relu = Relu(conv)   flatten = Flatten(relu)   fc = Linear(flatten)

What has no record is refused: the message names it, its place in the user's code and what to do.
"""

from __future__ import annotations

import operator
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from quant.layers.winograd_layer import TapLayer
from quant.network.graph import INPUT, NetworkGraph, Node, Shape
from quant.network.layer_modules import layer_node
from quant.network.operations import BATCH, FUNCTIONS, IN_PLACE, METHODS, MODULES, Draft, Value
from winnow.errors import NetworkError

_OURS = Path(__file__).name
_TORCH = str(Path(torch.__file__).parent)
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
# What user code raises when it branches or computes on values that are not there while tracing.
_TRACING = (
    fx.proxy.TraceError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    KeyError,
    IndexError,
    NotImplementedError,
    AssertionError,
)


class _Proxy(fx.Proxy):
    def __iadd__(self, other: Any) -> fx.Proxy:
        """Keep `x += y` apart from `x = x + y`: it also changes other names of x."""
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


class _Tracer(fx.Tracer):
    record_stack_traces = True

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        is_brevitas = type(module).__module__.startswith("brevitas.")
        return isinstance(module, TapLayer) or is_brevitas or super().is_leaf_module(module, name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


def read_graph(module: nn.Module, shape: Shape, method: str = "forward") -> NetworkGraph:
    """Return the graph of a module for images of `shape` (c, h, w), as it is in evaluation.

    `method` is what takes the images. It returns a tensor, or a tensor and a table of early exits,
    name -> tensor. Raises NetworkError that names what has no record and its place.
    """
    reader = _Reader(module, shape)
    tracer = _Tracer()
    tracer.traced_func_name = method
    was_training = module.training
    try:
        traced = tracer.trace(module.eval())
    except _TRACING as error:
        place = _last_place(traceback.format_exc())
        raise NetworkError(
            f"network '{type(module).__name__}' cannot be read as a graph{place}: "
            f"{_first_line(error)}; its forward must neither branch on values nor compute with "
            "them outside of torch"
        ) from error
    finally:
        module.train(was_training)
    return reader.read(traced)


class _Reader:
    """Turns the nodes of torch.fx into records; `known` maps a node to what it stands for."""

    def __init__(self, module: nn.Module, shape: Shape) -> None:
        self.module, self.shape = module, shape
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {INPUT: shape}
        self.known: dict[fx.Node, Any] = {}
        self.storage: dict[fx.Node, fx.Node] = {}  # node -> the one whose memory it shares
        self.overwritten: set[fx.Node] = set()
        self.output: NetworkGraph | None = None

    def read(self, traced: fx.Graph) -> NetworkGraph:
        steps: Mapping[str, Callable[[fx.Node], Any]] = {
            "placeholder": self._entry,
            "get_attr": self._attribute,
            "call_module": self._call_module,
            "call_function": self._call_function,
            "call_method": self._call_method,
            "output": self._result,
        }
        node = None
        try:
            for node in traced.nodes:
                self.known[node] = steps[node.op](node)
        except NetworkError as error:
            place = _last_place((node and node.stack_trace) or "")
            raise NetworkError(f"network '{type(self.module).__name__}'{place}: {error}") from error
        assert self.output is not None  # torch.fx ends every graph with an output
        return self.output

    def _entry(self, node: fx.Node) -> Value:
        if self.known:
            raise NetworkError(f"takes a second input '{node.target}'; it must take one, images")
        return Value(INPUT, self.shape)

    def _attribute(self, node: fx.Node) -> Any:
        raise NetworkError(
            f"computes with the tensor '{node.target}' outside of a layer; use a module that holds "
            "it, such as nn.Conv2d, nn.Linear or nn.BatchNorm2d"
        )

    def _arguments(self, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for read in node.all_input_nodes:
            if read in self.overwritten:
                raise NetworkError(
                    f"'{node.name}' reads '{read.name}', over which another operation has written "
                    "in place; write a new tensor instead"
                )
        args = fx.map_arg(node.args, self.known.__getitem__)
        return args, fx.map_arg(node.kwargs, self.known.__getitem__)

    def _call_module(self, node: fx.Node) -> Value:
        module, path = self.module.get_submodule(str(node.target)), str(node.target)
        args, kwargs = self._arguments(node)
        if len(args) != 1 or kwargs or not isinstance(args[0], Value):
            raise NetworkError(f"calls '{path}' with other arguments than one tensor")
        layer = layer_node(module, path, (args[0].name,))
        if layer is not None:
            if path in self.shapes:
                raise NetworkError(
                    f"layer '{path}' runs twice; every layer must have its own module"
                )
            return self._add(layer)
        reader = MODULES.get(type(module))
        if reader is None:
            raise NetworkError(
                f"'{path}' is a {type(module).__name__}, which the flow does not know; "
                f"it knows the modules {_known_modules()}"
            )
        is_written = bool(getattr(module, "inplace", False))
        return self._draft(node, reader(module, args[0]), path, is_written)

    def _call_function(self, node: fx.Node) -> Any:
        args, kwargs = self._arguments(node)
        if node.target is getattr and args[1:] == ("shape",):
            return (BATCH, *args[0].shape)
        if node.target is operator.getitem and isinstance(args[0], tuple):
            return args[0][args[1]]
        reader = FUNCTIONS.get(node.target)
        if reader is None:
            raise NetworkError(_unknown(f"function '{_function_name(node.target)}'"))
        return self._call(node, reader, args, kwargs)

    def _call_method(self, node: fx.Node) -> Any:
        args, kwargs = self._arguments(node)
        if node.target == "size":
            sizes = (BATCH, *args[0].shape)
            return sizes[args[1]] if len(args) > 1 else sizes
        reader = METHODS.get(str(node.target))
        if reader is None:
            raise NetworkError(_unknown(f"method '{node.target}'"))
        return self._call(node, reader, args, kwargs)

    def _call(
        self, node: fx.Node, reader: Callable[..., Draft], args: tuple[Any, ...], kwargs: Any
    ) -> Value:
        try:
            # Functions of torch call their first argument `input`, as positional ones do not.
            first = (kwargs.pop("input"),) if "input" in kwargs else ()
            draft = reader(*first, *args, **kwargs)
        except (TypeError, AttributeError) as error:
            raise NetworkError(
                f"calls '{_function_name(node.target)}' with arguments that the flow does not "
                f"know: {_first_line(error)}"
            ) from error
        is_written = node.target in IN_PLACE or bool(kwargs.get("inplace", False))
        return self._draft(node, draft, node.name, is_written)

    def _draft(self, node: fx.Node, draft: Draft, name: str, is_written: bool) -> Value:
        kind, values, fields = draft
        record = kind(self._free(name), tuple(value.name for value in values), **fields)
        value = self._add(record)
        first = node.all_input_nodes[0]
        if is_written:
            self._overwrite(node, first, value)
        elif kind.__name__ in ("Flatten", "Identity", "Dropout"):  # the same memory
            self.storage[node] = self.storage.get(first, first)
        return value

    def _overwrite(self, node: fx.Node, first: fx.Node, value: Value) -> None:
        """Note that `node` wrote over `first`: that name now means the result, others nothing."""
        root = self.storage.get(first, first)
        for other in [*self.known, root]:
            if self.storage.get(other, other) is root and other is not first:
                self.overwritten.add(other)
        self.storage[node] = root
        self.known[first] = value

    def _add(self, record: Node) -> Value:
        # Checks the record against what it reads here, so that the message has its place.
        shape = record.result_shape([self.shapes[name] for name in record.inputs])
        self.nodes.append(record)
        self.shapes[record.name] = shape
        return Value(record.name, shape)

    def _free(self, name: str) -> str:
        """Return a name that is not taken: relu, relu_1, relu_2."""
        tried, number = name, 0
        while tried in self.shapes or (tried != name and self._is_layer(tried)):
            number += 1
            tried = f"{name}_{number}"
        return tried

    def _is_layer(self, name: str) -> bool:
        return any(path == name for path, _ in self.module.named_modules())

    def _result(self, node: fx.Node) -> None:
        (value,), _ = self._arguments(node)
        has_exits = isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict)
        output, exits = value if has_exits else (value, {})
        if not all(isinstance(end, Value) for end in (output, *exits.values())):
            raise NetworkError(
                "returns something else than one tensor, or one tensor and a table of exits"
            )
        named = [(name, end.name) for name, end in exits.items()]
        graph = NetworkGraph(self.shape, tuple(self.nodes), output.name)
        used = graph.needed([output.name, *(end for _, end in named)])
        self.output = NetworkGraph.of(self.shape, used, output.name, named)


def _unknown(what: str) -> str:
    known = sorted({_function_name(target) for target in (*FUNCTIONS, *METHODS)})
    return (
        f"calls the {what}, which the flow does not know; "
        f"it knows the modules {_known_modules()} and the functions {', '.join(known)}"
    )


def _known_modules() -> str:
    from quant.network.layer_modules import KINDS

    return ", ".join(sorted(kind.__name__ for kind in (*KINDS, *MODULES) if _is_torchs(kind)))


def _is_torchs(kind: type[nn.Module]) -> bool:
    return kind.__module__.startswith("torch.")


def _function_name(target: Any) -> str:
    names = {target: name for name, target in vars(torch.nn.functional).items() if callable(target)}
    return target if isinstance(target, str) else names.get(target, target.__name__)


def _last_place(stack: str) -> str:
    """Return " at FILE:LINE" for the innermost frame outside of torch and of this file, or ""."""
    frames = [
        (file, line)
        for file, line in _FRAME.findall(stack)
        if not file.startswith((_TORCH, "<")) and Path(file).name != _OURS
    ]
    return f" at {Path(frames[-1][0]).name}:{frames[-1][1]}" if frames else ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
