# SPDX-License-Identifier: Apache-2.0
"""Early exit: which image leaves where, what it pays, and an exit that becomes the network."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from codegen.lower import lower_checkpoint
from quant.__main__ import main
from quant.allocate.layer_cost import layer_costs
from quant.build import Build
from quant.data import InputShape, Samples
from quant.distill.exits import (
    Answers,
    Reported,
    ask,
    curve,
    format_exits,
    leaving_costs,
    whole_cost,
)
from quant.models.library import network_of
from quant.network.network import Network, backbone, exit_network
from quant.run import STAGES, run_stage
from tests.conftest import ROOT
from tests.engines import expected_maps
from tests.ladder import multiplies
from winnow.artefact import load_arrays
from winnow.blocking import AVERAGE_WINDOW, LayerShape, Op
from winnow.cli import guard
from winnow.config import Config, ModelConfig, PruneConfig, QuantizeConfig, TrainConfig, load_config
from winnow.cycles import layer_cycles
from winnow.errors import ConfigError
from winnow.window import Axis, Window

SHAPE = (1, 16, 16)
CONFIG = Config(
    model=ModelConfig(channels=(8, 16, 16), pool_after=(1, 2), exit_after=(1, 2)),
    train=TrainConfig(epochs=2, batch=128),
    prune=PruneConfig(keep=2, steps=1, epochs=1),
    quantize=QuantizeConfig(budget_share=1.0, epochs=1),
)


def net_of(config: Config = CONFIG) -> Network:
    torch.manual_seed(0)
    return network_of(config.model, InputShape(1, 16, 10)).eval()


def answers_of(confidence: list[list[float]], right: list[list[int]]) -> Answers:
    together = np.array(right, bool).any(0)
    return Answers(np.array(confidence), np.array(right, bool), together)


def test_images_leave_at_the_first_exit_that_is_sure() -> None:
    answers = answers_of(
        [[0.95, 0.60, 0.30, 0.10], [0.99, 0.85, 0.95, 0.20], [0.5, 0.5, 0.5, 0.3]],
        [[1, 0, 0, 0], [1, 1, 0, 1], [1, 1, 1, 1]],
    )
    at_90, at_60 = curve(answers, [10, 30, 80], 50, (0.9, 0.6))
    assert at_90.shares == (0.25, 0.25, 0.5)
    assert at_90.accuracy == 75  # the third image is surely wrong at the second exit
    assert at_90.cost == (10 + 80 + 30 + 80) / 4 / 50
    assert at_60.shares == (0.5, 0.25, 0.25)
    assert at_60.accuracy == 50


def test_asked_exits_are_the_exit_networks() -> None:
    net = net_of()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (300, *SHAPE), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (300,), generator=generator)
    answers = ask(net, Samples(images, labels), torch.device("cpu"))
    assert answers.right.shape == (3, 300)
    for row, single in enumerate((exit_network(net, "conv1"), exit_network(net, "conv2"), net)):
        with torch.no_grad():
            logits = single.eval()(images * 2.0**-8).double()
        np.testing.assert_array_equal(answers.right[row], logits.argmax(1) == labels)
        want = logits.exp() / logits.exp().sum(1, keepdim=True)
        np.testing.assert_allclose(answers.confidence[row], want.max(1).values, atol=1e-6)


def cycles(op: Op, read: int, written: int, edge: int, keep: int, pool: bool = False) -> int:
    shape = LayerShape(op, read, written, edge, edge, keep, 8, pool)
    return layer_cycles(CONFIG.engine, shape).total


def pool_cycles(channels: int, edge: int) -> int:
    return without_weights(channels, edge, Window(Axis(2, 2), Axis(2, 2)), average=False)


def average_cycles(channels: int, edge: int) -> int:
    return without_weights(channels, edge, AVERAGE_WINDOW, average=True)


def without_weights(channels: int, edge: int, window: Window, average: bool) -> int:
    size = (channels, channels, edge, edge)
    shape = LayerShape(Op.DIRECT, *size, 1, 2, window=window, maximum=True, average=average)
    return layer_cycles(CONFIG.engine, shape).total


def test_an_image_pays_for_the_trunk_and_every_exit_it_tried() -> None:
    conv1 = cycles(Op.WINOGRAD, 1, 8, 16, 1, True)
    conv2, conv3 = cycles(Op.WINOGRAD, 8, 16, 8, 2, True), cycles(Op.WINOGRAD, 16, 16, 4, 2, False)
    fc = cycles(Op.DENSE, 16, 10, 4, 2, False)
    heads = {  # behind conv1, whose map has 8 channels of 8x8, and conv2, 16 of 4x4
        "convolutions": (
            cycles(Op.WINOGRAD, 8, 16, 8, 2, True) + fc,
            cycles(Op.WINOGRAD, 16, 16, 4, 2, False) + fc,
        ),
        "pool": (
            pool_cycles(8, 8) + cycles(Op.DIRECT, 8, 16, 4, 2) + averaged(16, 4),
            cycles(Op.DIRECT, 16, 16, 4, 2) + averaged(16, 4),
        ),
        "average": (
            pool_cycles(8, 8) + averaged(8, 4),
            pool_cycles(16, 4) + averaged(16, 2),
        ),
    }
    for kind, (exit1, exit2) in heads.items():
        net = net_of(replace(CONFIG, model=replace(CONFIG.model, exit_head=kind)))
        assert whole_cost(net, CONFIG) == conv1 + conv2 + conv3 + fc
        assert leaving_costs(net, CONFIG) == [
            conv1 + exit1,
            conv1 + exit1 + conv2 + exit2,
            conv1 + exit1 + conv2 + exit2 + conv3 + fc,
        ]


def averaged(channels: int, edge: int) -> int:
    """Cycles of an average over a map and of a classifier that reads it."""
    return average_cycles(channels, edge) + cycles(Op.DENSE, channels, 10, 1, 2)


def test_pooled_exits_of_the_digits_network_cost_less_than_the_whole() -> None:
    config = load_config(ROOT / "configs/digits.toml")
    shares = []
    for kind in ("convolutions", "pool", "average"):
        ours = replace(config, model=replace(config.model, exit_head=kind))
        net = net_of(ours)
        whole = whole_cost(net, ours)
        shares.append([round(100 * cost / whole) for cost in leaving_costs(net, ours)])
    # The numbers of docs/compression.md.
    assert shares == [[84, 137, 174], [75, 120, 157], [62, 93, 130]]


def test_a_pool_that_follows_no_layer_is_paid_for() -> None:
    pooled = nn.Sequential(
        nn.Conv2d(1, 8, 1), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(8, 8, 1)
    )
    net = Network.of(pooled, SHAPE)
    costs = layer_costs(net, CONFIG)
    axis = Axis(3, 2, 0, 1)  # the last window lacks a pixel
    shape = LayerShape(*(Op.DIRECT, 8, 8, 16, 16, 1, 2), window=Window(axis, axis), maximum=True)
    assert costs["1"] == layer_cycles(CONFIG.engine, shape).total
    assert list(costs) == ["0", "2", "1"]


def test_a_chain_without_exits_is_refused() -> None:
    bare = replace(CONFIG, model=replace(CONFIG.model, exit_after=()))
    with pytest.raises(
        ConfigError, match=r"^model\.exit_after must name a convolution .* or a block .* got \[\]"
    ):
        leaving_costs(net_of(bare), bare)


def test_the_threshold_is_chosen_on_validation_images() -> None:
    # One wrong and unsure image on validation, one wrong and rather sure image on test.
    validation = answers_of([[0.995, 0.6], [0.5, 0.5]], [[1, 0], [1, 1]])
    test = answers_of([[0.995, 0.97], [0.5, 0.5]], [[1, 0], [1, 1]])
    text = format_exits(["conv1"], Reported(validation, test), [10, 60], 50)
    assert text.splitlines()[:7] == [
        "everyone at  validation      test    cost",
        "      conv1     50.00 %   50.00 %   0.200",
        "        end    100.00 %  100.00 %   1.200",
        "   ensemble    100.00 %  100.00 %   1.200",
        "  threshold  validation      test    cost    conv1      end",
        "        0.5     50.00 %   50.00 %   0.200  100.0 %    0.0 %",
        "        0.6     50.00 %   50.00 %   0.200  100.0 %    0.0 %",
    ]
    (chosen,) = (line for line in text.splitlines() if line.endswith(" <- chosen"))
    assert chosen == ("        0.7    100.00 %   50.00 %   0.200  100.0 %    0.0 % <- chosen")


def test_without_a_good_threshold_none_is_chosen() -> None:
    wrong = answers_of([[1.0], [1.0]], [[0], [1]])
    text = format_exits(["conv1"], Reported(wrong, wrong), [10, 60], 50)
    assert "<- chosen" not in text
    assert text.endswith("no threshold is chosen: each loses to the end on validation images")


def test_the_ensemble_is_the_mean_of_all_softmax_outputs() -> None:
    net = net_of()
    images = torch.randint(0, 256, (300, *SHAPE), dtype=torch.uint8)
    labels = torch.randint(0, 10, (300,))
    answers = ask(net, Samples(images, labels), torch.device("cpu"))
    with torch.no_grad():
        ends, _ = net.with_exits(images * 2.0**-8)
        mean = sum(logits.double().softmax(1) for logits, _ in ends) / len(ends)
    np.testing.assert_array_equal(answers.together, mean.argmax(1) == labels)
    assert answers.ensemble == 100 * float(answers.together.mean())


def build_of(folder: Path, text: str) -> list[str]:
    path = folder / "tiny.toml"
    path.write_text(text)
    return ["--config", str(path), "--out", str(folder / "out")]


TINY = """
[model]
channels = [8, 16]
pool_after = [1, 2]
exit_after = [1]
[train]
epochs = 1
[quantize]
budget_share = 1.0
"""


def test_verb_prints_the_curve_of_a_trained_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = build_of(tmp_path, TINY)
    for verb in ("exits", "train", "exits"):
        monkeypatch.setattr(sys, "argv", ["quant", verb, *options])
        code = guard(main)
        out, error = capsys.readouterr()
        if verb == "exits" and code:
            assert "stage 'train' must run first: it has not run; run: python -m quant tr" in error
    lines = out.splitlines()
    assert lines[0].startswith("early exit of 360 test images, threshold chosen on 360 validation")
    assert lines[1] == "fp32 network:"
    assert [line.split()[0] for line in lines[3:6]] == ["conv1", "end", "ensemble"]
    assert len([line for line in lines[7:-1] if not line.startswith("no threshold")]) == 10
    assert lines[-1].startswith("quantized network: none yet; make it with: ")
    # What was trained with other exits is not shown for this configuration's.
    build_of(tmp_path, TINY.replace("exit_after = [1]", 'exit_after = [1]\nexit_head = "average"'))
    assert guard(main) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert "stage 'train' must run first: its config changed; run: python -m quant train" in error


def test_verb_needs_a_network_with_exits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("quant.exchange.load_trained", lambda _: backbone(net_of()))
    monkeypatch.setattr("quant.exchange.require_current", lambda *_: None)
    options = build_of(tmp_path, '[model]\nname = "resnet18"\n')
    monkeypatch.setattr(sys, "argv", ["quant", "exits", *options])
    assert guard(main) == 1
    assert capsys.readouterr().err == (
        "error: model.exit_after must name a convolution of a chain or a block for early exit, "
        "got []\n"
    )


def test_an_exit_becomes_the_network_all_the_way_to_the_graph(tmp_path: Path) -> None:
    config = replace(CONFIG, model=replace(CONFIG.model, exit=1))
    build = Build(config, tmp_path, torch.device("cpu"))
    for stage in STAGES.values():
        run_stage(stage, build)
    golden = load_arrays(tmp_path / "golden.npz", "")
    graph = lower_checkpoint(config, tmp_path)
    assert [layer.name for layer in multiplies(graph)] == ["conv1", "exit1_conv", "fc"]
    for name, integers in expected_maps(graph, golden["images"]).items():
        np.testing.assert_array_equal(golden[f"layer.{name}"], integers)
