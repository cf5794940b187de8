# SPDX-License-Identifier: Apache-2.0
"""The trace: signal to noise by hand, clipped values and dead channels that were planted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

import winnow
from quant.data import to_input
from quant.layers.bit_widths import BitWidths
from quant.layers.quantizers import bits_of, set_exponents
from quant.network.calibrate import calibrate
from quant.network.network import Network
from quant.network.rewrite import tap_layers, to_quantized, to_winograd
from quant.trace import Traced, draw_trace, format_trace, signal_to_noise, trace_networks


def networks() -> tuple[list[Network], torch.Tensor]:
    """Return a float, a pruned and a quantized network of two layers, and inputs."""
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 4, 3, padding=1)
    module = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 3))
    with torch.no_grad():
        conv.weight[2] = 0
        conv.bias[2] = -1  # always behind the ReLU: a dead channel
    plain = Network.of(module.eval(), (1, 8, 8))
    pruned = to_winograd(plain, 2)
    tap_layers(pruned)["3"].mask[:, ::2] = 0
    widths = {
        "0": BitWidths(8, 8, 8, relu=True),
        "3": BitWidths(8, 8, None, relu=False),
    }
    quantized = to_quantized(pruned, widths)
    x = torch.randint(0, 256, (6, 1, 8, 8)).double() / 256
    calibrate(quantized, x.float())
    return [plain, pruned, quantized], x


@pytest.mark.parametrize(
    ("signal", "other", "decibels"),
    [
        ([10.0, 0.0], [9.0, 0.0], 20.0),
        ([1.0, 1.0], [2.0, 2.0], 0.0),
        ([1.0, 2.0], [1.0, 2.0], math.inf),
        ([0.0], [1.0], -math.inf),
    ],
)
def test_signal_to_noise_is_that_of_the_definition(
    signal: list[float], other: list[float], decibels: float
) -> None:
    assert signal_to_noise(torch.tensor(signal), torch.tensor(other)) == pytest.approx(decibels)


def test_trace_tells_what_each_step_costs() -> None:
    nets, x = networks()
    conv, linear = trace_networks(nets, x)
    assert (conv.name, linear.name) == ("0", "3")
    assert conv.pruned > 100  # nothing was pruned there
    assert linear.pruned < 20  # half of the weights are gone
    assert 25 < conv.rounded < 60
    assert conv.whole == pytest.approx(conv.rounded, abs=0.5)
    assert linear.whole < linear.rounded
    assert (conv.dead, conv.channels) == (1, 4)
    assert (linear.dead, linear.clipped) == (0, 0.0)
    low, high = conv.weights
    assert low <= high <= 0


class Shortcut(nn.Module):
    """A sum of a layer's result and what it reads, perhaps the mean of that, a classifier."""

    def __init__(self, *, mean: bool = False) -> None:
        super().__init__()
        self.mean = mean
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8 if mean else 8 * 49, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x) + x)
        return self.fc(x.mean((2, 3)) if self.mean else torch.flatten(x, 1))


@pytest.mark.parametrize("mean", [False, True])
def test_sums_and_averages_count_to_the_layer_before_them(mean: bool) -> None:
    """Of 49 pixels, 49/64 of the mean: that is no noise."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (4, 1, 7, 7), dtype=torch.uint8)
    plain = Network.of(Shortcut(mean=mean).eval(), (1, 7, 7))
    quantized = winnow.quantize(plain, images)
    layers = trace_networks(
        [plain, to_winograd(plain, 2), quantized], to_input(images, torch.float64)
    )
    assert [layer.name for layer in layers] == ["first", "second", "fc"]
    assert all(layer.rounded > 20 for layer in layers)
    assert layers[1].clipped < 5


def test_clipped_values_are_counted() -> None:
    nets, x = networks()
    layer = tap_layers(nets[2])["0"]
    before = trace_networks(nets, x)[0]
    assert bits_of(layer.output_quant) == 8
    set_exponents(layer.output_quant, torch.tensor(before.exponent - 3))
    after = trace_networks(nets, x)[0]
    assert before.clipped < 2 < after.clipped
    assert after.exponent == before.exponent - 3
    assert after.rounded < before.rounded - 6


def test_trace_is_a_table_and_a_picture(tmp_path: Path) -> None:
    nets, x = networks()
    layers = trace_networks(nets, x)
    lines = format_trace(layers).splitlines()
    assert lines[0].split() == [
        *("layer", "pruned", "dB", "rounded", "dB", "both", "dB", "clipped", "%"),
        *("out", "V", "U", "dead"),
    ]
    assert [line.split()[0] for line in lines[1:]] == ["0", "3"]
    assert lines[1].split()[-1] == "1/4"
    equal = replace(layers[0], pruned=math.inf, rounded=-math.inf)
    picture = ElementTree.parse(draw_trace(tmp_path / "trace.svg", [*layers, equal])).getroot()
    found = [e for e in picture.iter() if e.tag.endswith("polyline")]
    assert len(found) == 3
    assert all(len(e.attrib["points"].split()) == 3 for e in found)
    texts = {e.text for e in picture.iter() if e.tag.endswith("text")}
    assert {"0", "3", "pruned against float", "integer against float"} <= texts


def test_layers_of_a_trace_are_plain_data() -> None:
    layer = Traced("a", 1.0, 2.0, 3.0, 0.0, -4, (-8, -8), (-6, -5), 0, 2)
    assert "-8..-8" in format_trace([layer])
