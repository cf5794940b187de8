# SPDX-License-Identifier: Apache-2.0
"""A network of the user's: made by their code, read as a graph, compared with what it was.

    model.name = "net.py:make_net", [model.arguments] width = 8
    -> make_net(width=8), an nn.Module -> Network, equal on random images

Whatever their code raises becomes one line with its place.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from quant.imports import exiting_told, importing
from quant.interchange.onnx_import import load_onnx, read_onnx, run_images
from quant.interchange.torch_import import load_checkpoint
from quant.network.from_module import first_line, place_of
from quant.network.graph import Flatten, NetworkGraph, Shape, Sigmoid, Softmax
from quant.network.layer_graph import unfolded
from quant.network.layer_modules import KINDS
from quant.network.network import Network
from quant.network.quantization import Quantization
from quant.network.same import random_images, require_same, result
from winnow.errors import ConfigError, NetworkError, shown, shown_text
from winnow.model_config import ModelConfig, OwnModel

HOST = (Softmax, Sigmoid)  # at the end they run on the host: the largest output stays the largest


def read_module(module: nn.Module, image: Shape, classes: int, kind: str = "classes") -> Network:
    """Return the network of a module for images of `image` (c, h, w), equal to it in float64.

    `classes` are those of the data, or values if that is the `kind`. What runs on the host is left
    out and named in `on_host`. Raises NetworkError for what has no
    record, for a result that is not one value per class, and for other numbers.
    """
    if isinstance(module, tuple(KINDS)):  # a layer alone has no name
        module = nn.Sequential(module)
    with exiting_told():
        network = Network.of(module, image)
    if network.graph.exits:
        raise NetworkError(
            f"network '{type(module).__name__}' returns a tensor and a table of others; return the "
            "tensor alone"
        )
    x = random_images(image)
    want = _given(module, x)
    require_same(want, result(network, x), "the network read as a graph")
    return _with_logits(_without_host(network.float()), classes, type(module).__name__, kind)


def read_file(path: Path, image: Shape, classes: int, kind: str = "classes") -> Network:
    """Return the network of an ONNX file, equal to ONNX's reference runtime; errors as above.

    Of a QONNX file it is the float network: what the file computes without its quantizers.
    """
    model = load_onnx(path)
    network = read_onnx(model, path.name, image)
    x = random_images(image)
    try:
        want = torch.from_numpy(run_images(model, x.numpy()))
    except Exception as error:
        raise NetworkError(
            f"'{path.name}' cannot be run by ONNX's reference runtime: {first_line(error)}"
        ) from error
    require_same(want, result(network, x), f"the network read from '{path.name}'")
    made = _with_logits(_without_host(network), classes, path.name, kind)
    made.quantization = network.quantization
    return made


def quantization_in(path: Path, image: Shape) -> Quantization | None:
    """Return what an ONNX file says of widths, None if it is not quantized; errors as above."""
    return read_onnx(load_onnx(path), path.name, image).quantization


def own_module(model: ModelConfig) -> nn.Module:
    """Return the module that the user's code makes, with the weights of `model.checkpoint`."""
    own = model.own
    assert own is not None  # the caller asks for one
    function = _function(own)
    try:
        with importing(own.code_folder), _settings_kept():
            module = function(**{name: _plain(value) for name, value in model.arguments})
    except (Exception, SystemExit) as error:
        raise NetworkError(
            f"model.name '{model.name}' raises {type(error).__name__}{place_of(error)}: "
            f"{first_line(error)}"
        ) from error
    if not isinstance(module, nn.Module):
        raise NetworkError(
            f"model.name '{model.name}' must give an nn.Module, got {type(module).__name__}"
        )
    if model.weights is not None:
        load_checkpoint(module, model.weights)
    return module


@contextmanager
def _settings_kept() -> Iterator[None]:
    """Undo what code within the context sets for all of torch."""
    gradients, kind = torch.is_grad_enabled(), torch.get_default_dtype()
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(kind)
        torch.set_num_threads(threads)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _function(own: OwnModel) -> Callable[..., Any]:
    """Import the user's code and return what makes the network."""
    name = str(own.file or own.module)
    if own.file is not None and not own.file.is_file():
        raise ConfigError(
            f"model.name: the file '{own.file}' is missing; its path is relative to the "
            "configuration file"
        )
    try:
        with importing(own.code_folder), _settings_kept():
            module = _loaded(own.file) if own.file else importlib.import_module(own.module)
    except (Exception, SystemExit) as error:
        raise NetworkError(
            f"'{name}' cannot be imported: {type(error).__name__}{_import_place(error)}: "
            f"{first_line(error)}"
        ) from error
    function = getattr(module, own.function, None)
    if not callable(function):
        raise ConfigError(
            f"model.name: '{name}' has no function or class {shown(own.function)}; it has "
            f"{shown_text(_callables(module), 200)}"
        )
    made: Callable[..., Any] = function
    return made


def _loaded(file: Path) -> ModuleType:
    """Return the module of a file, run anew, under a name that no other module has."""
    name = f"winnow_own_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # it ends with .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look it up
    spec.loader.exec_module(module)
    return module


def _import_place(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {Path(error.filename).name}:{error.lineno}"
    return place_of(error)


def _callables(module: ModuleType) -> str:
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__]
    return ", ".join(own) or "none"


@torch.no_grad()
def _given(module: nn.Module, x: Tensor) -> Tensor:
    """Return what the user's module itself computes in evaluation, in float64.

    NetworkError if that is not finite, or something else the next time.
    """
    was_training = module.training
    try:
        with exiting_told():
            found, again = (_tensor(module.double().eval()(x)) for _ in range(2))
    except (Exception, SystemExit) as error:
        raise NetworkError(
            f"network '{type(module).__name__}' raises {type(error).__name__} for images "
            f"{list(x.shape[1:])}{place_of(error)}: {first_line(error)}"
        ) from error
    finally:
        module.float().train(was_training)
    _require_steady(found, again, type(module).__name__)
    return found


def _tensor(found: Any) -> Tensor:
    value: Tensor = found[0] if isinstance(found, tuple) else found
    return value


def _require_steady(first: Tensor, second: Tensor, name: str) -> None:
    """Raise NetworkError unless what a module itself gives is finite, and the same again."""
    if not bool(first.isfinite().all()):
        raise NetworkError(
            f"network '{name}' itself gives NaN or infinity for random images; look for huge "
            "weights, and for variances of BatchNorm that are 0 or below"
        )
    if not torch.equal(first, second):
        raise NetworkError(
            f"network '{name}' itself gives other results when it sees the same images again; its "
            "forward must depend on them alone"
        )


def _without_host(network: Network) -> Network:
    """Return the network without steps at its end that leave the largest output the largest."""
    graph, left = network.graph, []
    while True:
        last = unfolded(graph, graph.output)
        node = graph.by_name.get(last)
        if not isinstance(node, HOST):
            break
        left.append(f"'{last}' ({type(node).__name__})")
        graph = replace(graph.ending_at(node.inputs[0]), exits=graph.exits)
    if left:
        network = network.part(graph)
    network.on_host = tuple(left)
    return network


def _with_logits(network: Network, classes: int, name: str, kind: str) -> Network:
    """Return the network with a vector for its result; NetworkError unless it has all classes."""
    graph = network.graph
    shape = graph.shape_of(graph.output)
    if shape == (classes,):
        return network
    if shape != (classes, 1, 1):
        what = f"{shape[0]} values" if len(shape) == 1 else f"a map {list(shape)}"
        mean = "" if len(shape) == 1 else " and take their mean over rows and columns"
        raise NetworkError(
            f"network '{name}' ends with {what}, the data have {classes} {kind}; give its last "
            f"layer {classes} outputs{mean}"
        )
    flat = Flatten(f"{graph.output}.flat", (graph.output,))  # no other record has this name
    ended = NetworkGraph.of(graph.input, (*graph.nodes, flat), flat.name, graph.exits)
    made = network.part(ended)
    made.on_host = network.on_host
    return made
