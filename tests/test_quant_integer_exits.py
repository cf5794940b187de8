# SPDX-License-Identifier: Apache-2.0
"""Exits of the quantized network: its integers stay, its heads are exact, the verb prints both."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from codegen.interpret import interpret
from codegen.lower import lower_whole
from codegen.schedule import schedule
from quant.build import Build, load_quantized, load_trained
from quant.data import to_input
from quant.distill.exits import ask
from quant.exchange import exits
from quant.integer_exits import integer_costs, quantized_with_exits, with_integer_heads
from quant.network.network import backbone
from quant.run import STAGES, run_stage
from winnow.config import Config, ModelConfig, PruneConfig, QuantizeConfig, TrainConfig
from winnow.errors import NetworkError

CONFIG = Config(
    model=ModelConfig(channels=(8, 16, 16), pool_after=(1,), exit_after=(1, 2)),
    train=TrainConfig(epochs=1, batch=128),
    prune=PruneConfig(keep=2, method="magnitude", steps=1, epochs=1),
    quantize=QuantizeConfig(budget_share=1.0, epochs=1),
)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A build up to stage `qat`."""
    build = Build(CONFIG, tmp_path_factory.mktemp("exits"), torch.device("cpu"))
    for name in ("train", "prune_channels", "prune", "bits", "qat"):
        run_stage(STAGES[name], build)
    return build


def test_the_quantized_network_keeps_its_integers_and_its_heads_have_some(build: Build) -> None:
    net, alone = quantized_with_exits(build), load_quantized(build)
    images = build.split().test.images[:40]
    x = to_input(images, torch.float64)
    ends, _ = net.with_exits(x)
    assert torch.equal(ends[0][0], alone(x))
    assert [name for name, _ in net.graph.exits] == ["conv1", "conv2"]
    for (_, end), (logits, _) in zip(net.graph.exits, ends[1:], strict=True):
        graph = lower_whole(net.part(net.graph.ending_at(end)))
        last = graph.nodes[-1]
        integers = interpret(graph, images.numpy())[last.name].reshape(len(images), -1)
        np.testing.assert_array_equal(integers * 2.0**last.output.exponent, logits.detach())


def test_costs_of_the_quantized_network_are_those_of_its_layers(build: Build) -> None:
    net = quantized_with_exits(build)
    costs, whole = integer_costs(build, net)
    first, second, end = costs
    assert 0 < first < second < end
    assert integer_costs(build, backbone(net)) == ([whole], whole)
    graphs = [lower_whole(net.part(net.graph.ending_at(e))) for _, e in net.graph.exits]
    planned = [schedule(graph, CONFIG.engine) for graph in graphs]
    assert whole == schedule(lower_whole(backbone(net)), CONFIG.engine).total_cycles
    # A pool on its own where the first exit leaves, for the network reads that map as well.
    assert first == planned[0].total_cycles
    own = [p.cycles.total for p in planned[0].layers if p.name.startswith("exit")]
    assert second == planned[1].total_cycles + sum(own)


def test_answers_of_the_quantized_network_are_asked_in_float64(build: Build) -> None:
    net, samples = quantized_with_exits(build), build.split().validation
    answers = ask(net, samples, torch.device("cpu"))
    logits = load_quantized(build)(to_input(samples.images, torch.float64))
    np.testing.assert_array_equal(answers.right[-1], logits.argmax(1) == samples.labels)


def test_the_verb_prints_both_networks(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    exits(build, argparse.Namespace())
    lines = capsys.readouterr().out.splitlines()
    places = [i for i, line in enumerate(lines) if line.endswith(" network:")]
    assert [lines[i] for i in places] == ["fp32 network:", "quantized network:"]
    for i in places:
        assert [line.split()[0] for line in lines[i + 2 : i + 6]] == [
            *("conv1", "conv2", "end", "ensemble")
        ]


def test_without_a_quantized_network_the_verb_says_how_to_make_it(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in build.out.glob("train*"):
        if path.is_file():
            shutil.copy(path, tmp_path)
    exits(replace(build, out=tmp_path), argparse.Namespace())
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("quantized network: none yet; make it with: python -m quant qat")


def test_a_quantized_network_without_the_map_has_no_exits(
    build: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = load_quantized(build)
    shorter = alone.part(alone.graph.ending_at("conv1"))
    monkeypatch.setattr("quant.integer_exits.load_quantized", lambda _: shorter)
    with pytest.raises(NetworkError, match=r"^exit 'conv1' reads a map .* network has none; .*"):
        quantized_with_exits(build)
    exits(build, argparse.Namespace())
    assert "quantized network: exit 'conv1' reads a map" in capsys.readouterr().out


def test_a_network_that_ends_at_an_exit_has_no_exits(build: Build) -> None:
    trained, net = load_trained(build), load_quantized(build)
    ending = replace(build.config, model=replace(build.config.model, exit=1))
    with pytest.raises(NetworkError, match=r"^model.exit must be 0 for exits, got 1, at which"):
        with_integer_heads(replace(build, config=ending), trained, net)
