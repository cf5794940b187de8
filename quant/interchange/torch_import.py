# SPDX-License-Identifier: Apache-2.0
"""Trained weights from elsewhere: PyTorch checkpoints of the library's networks.

Nothing in a file is executed: torch.load reads plain tensors only. A file that does not fit leaves
the network as it was.
"""

from __future__ import annotations

import pickle
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quant.network.network import Network, own_records
from quant.network.network_file import GRAPH_HASH
from winnow.artefact import load_arrays
from winnow.errors import ArtefactError, ConfigError, ToolError, shown

WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys that training loops put around it
PREFIXES = ("module.", "_orig_mod.")  # of data-parallel and compiled networks
COUNTER = "num_batches_tracked"  # of BatchNorm; files before PyTorch 0.4.1 lack it
SHOWN = 4  # names per message

# What torch.load raises on files that are damaged or hold more than tensors.
_DAMAGE = (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Imported:
    """Names taken from the file, and names of classifiers that keep their fresh weights."""

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]


def load_checkpoint(model: nn.Module, path: Path, *, replace_head: bool = False) -> Imported:
    """Copy the weights of a .pt, .pth, .safetensors or .npz file into `model`.

    Names must be those of the network, torchvision's for the library; a wrapping
    {"state_dict": ...} and the prefix "module." are taken off, numbers become the network's dtype.
    With `replace_head` the
    last linear layer keeps its fresh weights, for another number of classes; so do early exits if
    the file has none. Raises ArtefactError,
    with the network unchanged, when the file is missing, damaged or of another network, ConfigError
    for an unknown kind of file, ToolError when safetensors is not installed.
    """
    state = model.state_dict()
    found = read_state(path)
    head = (*(_head(model) if replace_head else ()), *_exits_missing(model, found))
    found = {name: value for name, value in found.items() if name not in head}
    problem = _difference({n: v for n, v in state.items() if n not in head}, found)
    if problem:
        hint = "" if replace_head else _head_hint(model, state, found, path)
        raise ArtefactError(f"checkpoint '{path}' belongs to another model: {problem}{hint}")
    loaded = tuple(name for name in state if name in found)
    model.load_state_dict(state | {name: found[name].to(state[name].dtype) for name in loaded})
    return Imported(loaded, head)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint by name, wrappers and prefixes taken off."""
    if path.suffix not in _READERS:
        kinds = ", ".join(_READERS)
        raise ConfigError(f"checkpoint '{path}' must end in one of {kinds}")
    if not path.is_file():
        raise ArtefactError(f"checkpoint '{path}' is missing; name an existing file")
    content = _READERS[path.suffix](path)
    while isinstance(content, Mapping) and (inner := set(WRAPPERS) & content.keys()):
        content = content[min(inner, key=WRAPPERS.index)]
    if not isinstance(content, Mapping) or not content:
        raise ArtefactError(f"checkpoint '{path}' holds no table of tensors; {_ADVICE}")
    names = {str(name): value for name, value in content.items()}
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in names)), None):
        names = {name.removeprefix(prefix): value for name, value in names.items()}
    for name, value in names.items():
        if not isinstance(value, Tensor):
            raise ArtefactError(
                f"checkpoint '{path}': {shown(name)} is {type(value).__name__}, no tensor; "
                f"{_ADVICE}"
            )
        if value.is_meta or value.layout != torch.strided:
            kind = "tensor without data" if value.is_meta else "sparse tensor"
            raise ArtefactError(f"checkpoint '{path}': {shown(name)} is a {kind}; store plain ones")
    return names


_ADVICE = "write it with: torch.save(model.state_dict(), FILE)"


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise ArtefactError(
            f"checkpoint '{path}' is damaged or holds more than tensors "
            f"({type(error).__name__}); {_ADVICE}"
        ) from error


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError  # not every environment has it
        from safetensors.torch import load_file
    except ImportError as error:
        raise ToolError(
            "Python package 'safetensors' is missing; install the pinned packages with: make setup"
        ) from error
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"checkpoint '{path}' is damaged ({type(error).__name__})") from error


def _read_npz(path: Path) -> Any:
    try:
        arrays = load_arrays(path, "")
    except ArtefactError as error:
        raise ArtefactError(
            f"checkpoint '{path}' is damaged or holds more than plain arrays; write it with: "
            "np.savez(FILE, **{name: value.numpy() for name, value in model.state_dict().items()})"
        ) from error
    return {name: torch.from_numpy(a) for name, a in arrays.items() if name != GRAPH_HASH}


_READERS: dict[str, Callable[[Path], Any]] = {
    ".pt": _read_torch,
    ".pth": _read_torch,
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
}


def _difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Return how names, shapes and kinds of number differ, or an empty text."""
    required = [n for n in expected if n in found or not n.endswith(COUNTER)]
    wrong = [n for n in required if n in found and not _fits(expected[n], found[n])]
    parts = (
        ("it lacks", [shown(n) for n in required if n not in found]),
        ("it has an unknown", [shown(n) for n in found if n not in expected]),
        ("differs:", [_told(n, expected[n], found[n]) for n in wrong]),
    )
    if any(names for _, names in parts):
        return "; ".join(f"{what} {_listed(names)}" for what, names in parts if names)
    broken = [f"'{n}'" for n in required if not bool(found[n].isfinite().all())]
    return f"NaN or infinity in {_listed(broken)}" if broken else ""


def _fits(expected: Tensor, found: Tensor) -> bool:
    return (
        expected.shape == found.shape and expected.is_floating_point() == found.is_floating_point()
    )


def _told(name: str, expected: Tensor, found: Tensor) -> str:
    wanted, had = (f"{str(t.dtype)[6:]}{list(t.shape)}" for t in (expected, found))
    return f"'{name}' must be {wanted}, is {had}"


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _head(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the classifier's tensors; none for a module that was not read."""
    if not isinstance(model, Network):
        return ()
    return tuple(f"{model.graph.head()}.{part}" for part in ("weight", "bias"))


def _exits_missing(model: nn.Module, found: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the names of the exits' tensors if the file has none of them."""
    if not isinstance(model, Network):
        return ()
    graph = model.graph
    layers = {node.name for name, _ in graph.exits for node in own_records(graph, name)}
    names = tuple(name for name in model.state_dict() if name.rpartition(".")[0] in layers)
    return () if set(names) & found.keys() else names


def _head_hint(
    model: nn.Module, state: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path
) -> str:
    """Return what to do when only the number of classes differs."""
    head = set(_head(model))
    is_other = head and head <= found.keys() and any(found[n].shape != state[n].shape for n in head)
    rest, found_rest = ({n: v for n, v in s.items() if n not in head} for s in (state, found))
    if not is_other or _difference(rest, found_rest):
        return ""
    return (
        "; for another number of classes keep a fresh classifier: python -m quant import --config "
        f"CONFIG --out OUT --checkpoint {shlex.quote(str(path))} --replace-head"
    )
