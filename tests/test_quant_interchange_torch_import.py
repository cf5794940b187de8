# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in: what the file holds is in the network, or nothing is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from quant.interchange.torch_import import load_checkpoint
from quant.network.network_file import save_network
from tests.library_nets import images, tiny
from winnow.errors import (
    ArtefactError,
    ConfigError,
    ToolError,
)

Writer = Callable[[Path, dict[str, Any]], None]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def write_safetensors(path: Path, state: dict[str, Any]) -> None:
    save_file(state, path)


def write_torch(path: Path, state: dict[str, Any]) -> None:
    torch.save(state, path)


def wrapped(key: str) -> Writer:
    return lambda path, state: torch.save({"epoch": 3, key: state}, path)


def prefixed(prefix: str) -> Writer:
    return lambda path, state: torch.save({prefix + n: v for n, v in state.items()}, path)


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".pt", write_torch),
        (".pth", write_torch),
        (".safetensors", write_safetensors),
        (".pt", wrapped("state_dict")),
        (".pt", wrapped("model")),
        (".pt", wrapped("model_state_dict")),
        (".pt", prefixed("module.")),
        (".pt", prefixed("module._orig_mod.")),
        (".pt", lambda path, state: prefixed("module.")(path, state)),
    ],
)
def test_checkpoint_is_read_in_every_form(suffix: str, write: Writer, tmp_path: Path) -> None:
    source, net = tiny(), tiny()
    path = tmp_path / f"weights{suffix}"
    write(path, source.state_dict())
    x = images()
    assert not torch.equal(net(x), source(x))
    imported = load_checkpoint(net, path)
    assert set(imported.loaded) == source.state_dict().keys()
    assert imported.fresh == ()
    assert torch.equal(net(x), source(x))


def test_own_checkpoint_is_read(tmp_path: Path) -> None:
    source, net = tiny("vgg_nagadomi"), tiny("vgg_nagadomi")
    save_network(tmp_path / "weights.npz", source)
    load_checkpoint(net, tmp_path / "weights.npz")
    assert torch.equal(net(images()[:1] * 0 + 1), source(images()[:1] * 0 + 1))


def test_half_precision_becomes_the_networks_own(tmp_path: Path) -> None:
    source, net = tiny(), tiny()
    half = {n: v.half() if v.is_floating_point() else v for n, v in source.state_dict().items()}
    torch.save(half, tmp_path / "weights.pt")
    load_checkpoint(net, tmp_path / "weights.pt")
    assert net.fc.weight.dtype == torch.float32
    assert torch.equal(net.fc.weight, source.fc.weight.half().float())


def test_checkpoint_without_batch_counters_is_read(tmp_path: Path) -> None:
    source, net = tiny(), tiny()
    old = {n: v for n, v in source.state_dict().items() if not n.endswith("batches_tracked")}
    torch.save(old, tmp_path / "weights.pt")
    imported = load_checkpoint(net, tmp_path / "weights.pt")
    assert set(imported.loaded) == old.keys()
    x = images()
    assert torch.equal(net(x), source(x))


def test_classifier_for_other_classes_stays_fresh(tmp_path: Path) -> None:
    source, net = tiny(classes=1000), tiny()
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    fresh = net.fc.weight.clone()
    with pytest.raises(ArtefactError, match=r"'fc.weight' must be float32\[10, 64\]") as error:
        load_checkpoint(net, tmp_path / "weights.pt")
    assert str(error.value).endswith(
        "; for another number of classes keep a fresh classifier: python -m quant import --config "
        f"CONFIG --out OUT --checkpoint {tmp_path / 'weights.pt'} --replace-head"
    )
    imported = load_checkpoint(net, tmp_path / "weights.pt", replace_head=True)
    assert imported.fresh == ("fc.weight", "fc.bias")
    assert torch.equal(net.fc.weight, fresh)
    assert torch.equal(*(n.get_submodule("layer4.0.conv1").weight for n in (net, source)))


def _drop(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != "bn1.weight"}


def _nan(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"fc.bias": state["fc.bias"] * torch.nan}


DIFFERENT: tuple[tuple[Callable[[dict[str, Any]], Any], str], ...] = (
    (_drop, "belongs to another model: it lacks 'bn1.weight'"),
    (lambda s: s | {"a": torch.ones(1)}, "belongs to another model: it has an unknown 'a'"),
    (
        lambda s: s | {"bn1.weight": torch.ones(9)},
        "belongs to another model: differs: 'bn1.weight' must be float32[8], is float32[9]",
    ),
    (
        lambda s: s | {"bn1.weight": torch.ones(8, dtype=torch.int8)},
        "belongs to another model: differs: 'bn1.weight' must be float32[8], is int8[8]",
    ),
    (
        lambda s: _drop(s) | {"b": torch.ones(1), "bn1.bias": torch.ones(1)},
        "belongs to another model: it lacks 'bn1.weight'; it has an unknown 'b'; "
        "differs: 'bn1.bias' must be float32[8], is float32[1]",
    ),
    (
        lambda s: s | {f"x{i}": torch.ones(1) for i in range(6)},
        "belongs to another model: it has an unknown 'x0', 'x1', 'x2', 'x3' and 2 more",
    ),
    (_nan, "belongs to another model: NaN or infinity in 'fc.bias'"),
    (
        lambda s: s | {"note": "hello"},
        ": 'note' is str, no tensor; write it with: torch.save(model.state_dict(), FILE)",
    ),
    (lambda s: s | {"fc.bias": s["fc.bias"].to_sparse()}, "is a sparse tensor; store plain ones"),
    (
        lambda s: s | {"fc.bias": s["fc.bias"].to("meta")},
        "is a tensor without data; store plain ones",
    ),
    (
        lambda _: [1, 2],
        " holds no table of tensors; write it with: torch.save(model.state_dict(), FILE)",
    ),
    (
        lambda _: {"state_dict": {}},
        " holds no table of tensors; write it with: torch.save(model.state_dict(), FILE)",
    ),
)


@pytest.mark.parametrize(("change", "told"), DIFFERENT, ids=range(len(DIFFERENT)))
def test_other_checkpoint_is_told_by_name_and_changes_nothing(
    change: Callable[[dict[str, Any]], Any], told: str, tmp_path: Path
) -> None:
    net, path = tiny(), tmp_path / "weights.pt"
    torch.save(change(tiny().state_dict()), path)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ArtefactError) as error:
        load_checkpoint(net, path)
    assert str(error.value).startswith(f"checkpoint '{path}'")
    assert str(error.value).endswith(told)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


class Bomb:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Bomb()}, "weights.pt")
    with pytest.raises(ArtefactError, match=r"holds more than tensors \(UnpicklingError\); write"):
        load_checkpoint(tiny(), Path("weights.pt"))
    assert not Path("exploded").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
@pytest.mark.parametrize("length", [0, 1, 1000, -1000])
def test_damaged_checkpoint_is_told(suffix: str, length: int, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".npz":
        save_network(path, tiny())
    else:
        (write_torch if suffix == ".pt" else write_safetensors)(path, tiny().state_dict())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ArtefactError, match="is damaged") as error:
        load_checkpoint(tiny(), path)
    assert str(path) in str(error.value)


def test_missing_and_unknown_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError) as error:
        load_checkpoint(tiny(), tmp_path / "no.pt")
    assert str(error.value) == f"checkpoint '{tmp_path}/no.pt' is missing; name an existing file"
    with pytest.raises(ConfigError) as unknown:
        load_checkpoint(tiny(), tmp_path / "net.h5")
    assert str(unknown.value) == (
        f"checkpoint '{tmp_path}/net.h5' must end in one of .pt, .pth, .safetensors, .npz"
    )


def test_npz_of_objects_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([None]))
    with pytest.raises(
        ArtefactError, match=r"a\.npz' is damaged or holds more than plain arrays; wr"
    ):
        load_checkpoint(tiny(), tmp_path / "a.npz")


def test_missing_safetensors_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_safetensors(tmp_path / "weights.safetensors", tiny().state_dict())
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ToolError) as error:
        load_checkpoint(tiny(), tmp_path / "weights.safetensors")
    assert str(error.value) == (
        "Python package 'safetensors' is missing; install the pinned packages with: make setup"
    )
