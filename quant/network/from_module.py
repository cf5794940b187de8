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

from quant.network.graph import INPUT, NetworkGraph, Node, Shape
from quant.network.layer_modules import KINDS, layer_node
from quant.network.operations import (
    BATCH,
    FUNCTIONS,
    IN_PLACE,
    METHODS,
    MODULES,
    Draft,
    TracedValue,
)
from quant.network.plain import require_own_weights, require_plain
from quant.network.remedies import remedy_for
from winnow.errors import NetworkError, shown_text

_QUANT = Path(__file__).parents[1]
_OURS = tuple(str(_QUANT / name) for name in ("network", "models/own.py", "imports.py"))
_TORCH = str(Path(torch.__file__).parent)
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


class _Proxy(fx.Proxy):
    def __iadd__(self, other: Any) -> fx.Proxy:
        """Keep `x += y` apart from `x = x + y`: it also changes other names of x."""
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


class _Tracer(fx.Tracer):
    record_stack_traces = True

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        is_brevitas = type(module).__module__.startswith("brevitas.")
        is_layer = isinstance(module, tuple(KINDS))  # also a subclass of the user's
        return is_layer or is_brevitas or super().is_leaf_module(module, name)

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
        require_plain(module, "")
        traced = tracer.trace(module.eval())
    except NetworkError as error:
        raise NetworkError(f"network '{type(module).__name__}': {error}") from error
    except SystemExit as error:
        raise NetworkError(
            f"network '{type(module).__name__}' ends Python{place_of(error)}: {first_line(error)}; "
            "its forward must only compute"
        ) from error
    except Exception as error:  # users' code may raise anything without values
        raise NetworkError(
            f"network '{type(module).__name__}' cannot be read as a graph{place_of(error)}: "
            f"{first_line(error)}; its forward must neither branch on values or sizes nor "
            "compute with them outside of torch"
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
        self.owners: dict[int, str] = {}  # memory of weights -> the layer that has them
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
            place = _last_place(node and node.stack_trace)
            raise NetworkError(f"network '{type(self.module).__name__}'{place}: {error}") from error
        assert self.output is not None  # torch.fx ends every graph with an output
        return self.output

    def _entry(self, node: fx.Node) -> TracedValue:
        if self.known:
            raise NetworkError(f"takes a second input '{node.target}'; it must take one, images")
        return TracedValue(INPUT, self.shape)

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

    def _call_module(self, node: fx.Node) -> TracedValue:
        module, path = self.module.get_submodule(str(node.target)), str(node.target)
        args, kwargs = self._arguments(node)
        if len(args) != 1 or kwargs or not isinstance(args[0], TracedValue):
            raise NetworkError(f"calls '{path}' with other arguments than one tensor")
        require_plain(module, path)
        layer = layer_node(module, path, (args[0].name,))
        if layer is not None:
            require_own_weights(module, path, self.owners)
            if path in self.shapes:
                raise NetworkError(
                    f"layer '{path}' runs twice; every layer must have its own module"
                )
            return self._add(layer)
        reader = MODULES.get(type(module))
        if reader is None:
            raise NetworkError(_unknown_module(module, path) + _remedy(type(module).__name__, args))
        is_written = bool(getattr(module, "inplace", False))
        return self._draft(node, reader(module, args[0]), path, is_written)

    def _call_function(self, node: fx.Node) -> Any:
        args, kwargs = self._arguments(node)
        if node.target is getattr and args[1:] == ("shape",):
            return (BATCH, *args[0].shape)
        if node.target in _ON_SIZES and not any(_holds_value(a) for a in args):
            return _computed(node, args)
        reader = FUNCTIONS.get(node.target)
        if reader is None:
            name = _function_name(node.target)
            raise NetworkError(_unknown(f"function '{name}'") + _remedy(name, args))
        return self._call(node, reader, args, kwargs)

    def _call_method(self, node: fx.Node) -> Any:
        args, kwargs = self._arguments(node)
        if node.target == "size":
            sizes = (BATCH, *args[0].shape)
            return sizes[args[1]] if len(args) > 1 else sizes
        reader = METHODS.get(str(node.target))
        if reader is None:
            name = str(node.target)
            raise NetworkError(_unknown(f"method '{name}'") + _remedy(name, args))
        return self._call(node, reader, args, kwargs)

    def _call(
        self, node: fx.Node, reader: Callable[..., Draft], args: tuple[Any, ...], kwargs: Any
    ) -> TracedValue:
        try:
            # Functions of torch call their first argument `input`, as positional ones do not.
            first = (kwargs.pop("input"),) if "input" in kwargs else ()
            draft = reader(*first, *args, **kwargs)
        except NetworkError:
            raise
        except Exception as error:  # as many kinds as there are wrong arguments
            raise NetworkError(
                f"calls '{_function_name(node.target)}' with arguments that the flow does not "
                f"know: {first_line(error)}"
            ) from error
        is_written = node.target in IN_PLACE or bool(kwargs.get("inplace", False))
        return self._draft(node, draft, node.name, is_written)

    def _draft(self, node: fx.Node, draft: Draft, name: str, is_written: bool) -> TracedValue:
        kind, values, fields = draft
        record = kind(self._free(name), tuple(value.name for value in values), **fields)
        value = self._add(record)
        first = node.all_input_nodes[0]
        if is_written:
            self._overwrite(node, first, value)
        elif kind.__name__ in ("Flatten", "Identity", "Dropout"):  # the same memory
            self.storage[node] = self.storage.get(first, first)
        return value

    def _overwrite(self, node: fx.Node, first: fx.Node, value: TracedValue) -> None:
        """Note that `node` wrote over `first`: that name now means the result, others nothing."""
        root = self.storage.get(first, first)
        for other in [*self.known, root]:
            if self.storage.get(other, other) is root and other is not first:
                self.overwritten.add(other)
        self.storage[node] = root
        self.known[first] = value

    def _add(self, record: Node) -> TracedValue:
        # Checks the record against what it reads here, so that the message has its place.
        shape = record.result_shape([self.shapes[name] for name in record.inputs])
        self.nodes.append(record)
        self.shapes[record.name] = shape
        return TracedValue(record.name, shape)

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
        if not all(isinstance(end, TracedValue) for end in (output, *exits.values())):
            raise NetworkError(
                "returns something else than one tensor, or one tensor and a table of exits"
            )
        named = [(name, end.name) for name, end in exits.items()]
        graph = NetworkGraph(self.shape, tuple(self.nodes), output.name)
        used = graph.needed([output.name, *(end for _, end in named)])
        self.output = NetworkGraph.of(self.shape, used, output.name, named)


# What users compute with sizes, numbers that are known while reading.
_ON_SIZES = (
    *(operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv),
    *(operator.truediv, operator.neg, operator.mod),
)


def _holds_value(argument: Any) -> bool:
    return isinstance(argument, TracedValue)


def _computed(node: fx.Node, args: tuple[Any, ...]) -> Any:
    try:
        return node.target(*args)
    except (TypeError, LookupError, ArithmeticError) as error:
        raise NetworkError(
            f"computes with the number of images or other sizes in a way that the flow does not "
            f"know: {first_line(error)}; use torch.flatten(x, 1)"
        ) from error


def _unknown(what: str) -> str:
    known = sorted({_function_name(target) for target in (*FUNCTIONS, *METHODS)})
    return (
        f"calls the {what}, which the flow does not know; "
        f"it knows the modules {_known_modules()} and the functions {', '.join(known)}"
    )


def _remedy(name: str, args: tuple[Any, ...]) -> str:
    read = [value.name for value in args if isinstance(value, TracedValue)]
    reads_images = set(read) == {INPUT}
    return remedy_for(name, reads_images=reads_images)


def _unknown_module(module: nn.Module, path: str) -> str:
    own = type(module)
    base = next((kind for kind in own.__mro__ if kind in KINDS), None)
    if base is not None:
        return (
            f"'{path}' is a {own.__name__}, a {base.__name__} with methods of its own, which the "
            f"flow does not know; write what it does with layers and functions of torch"
        )
    return (
        f"'{path}' is a {own.__name__}, which the flow does not know; "
        f"it knows the modules {_known_modules()}"
    )


def _known_modules() -> str:
    return ", ".join(sorted(kind.__name__ for kind in (*KINDS, *MODULES) if _is_torchs(kind)))


def _is_torchs(kind: type[nn.Module]) -> bool:
    return kind.__module__.startswith("torch.")


def _function_name(target: Any) -> str:
    names = {target: name for name, target in vars(torch.nn.functional).items() if callable(target)}
    return target if isinstance(target, str) else names.get(target, target.__name__)


def _last_place(stack: str | None) -> str:
    """Return " at FILE:LINE" for the innermost frame outside of torch and our code, or ""."""
    frames = [
        (file, line)
        for file, line in _FRAME.findall(stack or "")
        if not file.startswith((_TORCH, "<", *_OURS))
    ]
    return f" at {Path(frames[-1][0]).name}:{frames[-1][1]}" if frames else ""


def place_of(error: BaseException) -> str:
    """Return " at FILE:LINE" for the innermost place in the user's code that raised, or ""."""
    return _last_place("".join(traceback.format_exception(error)))


def first_line(error: BaseException) -> str:
    """Return the first line of what an error of other people's code says."""
    return shown_text((str(error).strip().splitlines() or [type(error).__name__])[0], 200)
