# SPDX-License-Identifier: Apache-2.0
"""The model library: published sizes and costs, torchvision's names, and removal of channels."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from quant.allocate.flops import flops, layer_flops, parameters
from quant.models.library import NAMES, make_model
from quant.models.model_spec import round_width
from quant.network.channels import ChannelGroup, remove_channels
from quant.network.graph import Relu
from quant.network.network import Network
from quant.network.structure import block_ends, channel_groups
from winnow.errors import ConfigError

CLASSES = 10
REMOVED = (1, 4, 5)

# Parameters as torchvision's documentation lists them for 1000 classes at 224 pixels; entries of
# the state dict, 5 per BatchNorm; multiply-accumulates in 10^9 and the last digit's unit.
PUBLISHED = {
    "vgg16": (138_357_544, 13 * 2 + 3 * 2, 15.47, 0.01),
    "vgg16_bn": (138_365_992, 13 * 7 + 3 * 2, 15.47, 0.01),
    "resnet18": (11_689_512, 122, 1.81, 0.01),
    "resnet34": (21_797_672, 218, 3.66, 0.01),
    "resnet50": (25_557_032, 320, 4.09, 0.01),
    "mobilenet_v2": (3_504_872, 314, 0.30, 0.01),
}

# A few of torchvision's names per network, with their shapes.
TORCHVISION = {
    "vgg16": {
        "features.0.weight": (64, 3, 3, 3),
        "features.28.bias": (512,),
        "classifier.0.weight": (4096, 25088),
        "classifier.3.weight": (4096, 4096),
        "classifier.6.bias": (1000,),
    },
    "vgg16_bn": {
        "features.0.bias": (64,),
        "features.1.running_mean": (64,),
        "features.40.weight": (512, 512, 3, 3),
        "features.41.num_batches_tracked": (),
        "classifier.6.weight": (1000, 4096),
    },
    "resnet18": {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.1.conv2.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.bias": (128,),
        "fc.weight": (1000, 512),
    },
    "resnet34": {"layer3.5.bn2.weight": (256,), "layer4.2.conv1.weight": (512, 512, 3, 3)},
    "resnet50": {
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer2.0.conv1.weight": (128, 256, 1, 1),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "layer4.2.bn3.weight": (2048,),
        "fc.bias": (1000,),
    },
    "mobilenet_v2": {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.1.conv.2.running_mean": (16,),
        "features.2.conv.0.0.weight": (96, 16, 1, 1),
        "features.2.conv.1.0.weight": (96, 1, 3, 3),
        "features.2.conv.2.weight": (24, 96, 1, 1),
        "features.17.conv.3.weight": (320,),
        "features.18.0.weight": (1280, 320, 1, 1),
        "classifier.1.weight": (1000, 1280),
    },
}

VGG16_CONVS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
VGG16_BN_CONVS = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
RESNETS = {
    "resnet18": (2, (2, 2, 2, 2)),
    "resnet34": (2, (3, 4, 6, 3)),
    "resnet50": (3, (3, 4, 6, 3)),
}

# Activations that one image passes at 224 pixels.
NUM_RELUS = {
    "vgg16": 13 + 2,
    "vgg16_bn": 13 + 2,
    "vgg_nagadomi": 8 + 2,
    "vgg_nagadomi_bn": 8 + 2,
    "resnet8": 1 + 2 * 3,
    "resnet20": 1 + 2 * 9,
    "resnet18": 1 + 2 * 8,
    "resnet34": 1 + 2 * 16,
    "resnet50": 1 + 3 * 16,
    "mobilenet_v2": 1 + 1 + 2 * 16 + 1,
    "mobilenet_v2_relu": 1 + 1 + 2 * 16 + 1,
}

NUM_GROUPS = {
    "vgg16": 13,
    "vgg16_bn": 13,
    "vgg_nagadomi": 8,
    "vgg_nagadomi_bn": 8,
    "resnet8": 3,
    "resnet20": 9,
    "resnet18": 8,
    "resnet34": 16,
    "resnet50": 32,
    "mobilenet_v2": 18,
    "mobilenet_v2_relu": 18,
}


def shape_of(name: str, edge: int) -> Network:
    """Return a full-width network without storage."""
    with torch.device("meta"):
        return Network.of(make_model(name, 1000, edge=edge), (3, edge, edge))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@torch.no_grad()
def small(name: str, edge: int = 32, width: float | None = None) -> Network:
    """Return a narrow float64 network in evaluation mode whose every layer matters.

    BatchNorm has the statistics of a batch, so that no map fades away, and uneven gains.
    """
    width = width or (0.5 if name.startswith("mobilenet_v2") else 0.25)
    net = make_model(name, CLASSES, edge=edge, width=width).double()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.momentum = 1.0
        elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
    net(torch.randn(4, 3, edge, edge, dtype=torch.float64))
    return Network.of(net.eval(), (3, edge, edge))


def library(name: str, width: float = 1.0) -> Network:
    return Network.of(make_model(name, CLASSES, width=width), (3, 32, 32))


def others(channels: int) -> Tensor:
    return torch.tensor([i for i in range(channels) if i not in REMOVED])


@torch.no_grad()
def silence(net: nn.Module, group: ChannelGroup) -> None:
    """Make the channels REMOVED of a group put out zero everywhere."""
    names = (*group.producers, *group.followers)
    norms = [m for m in map(net.get_submodule, names) if isinstance(m, nn.BatchNorm2d)]
    for module in norms or [net.get_submodule(name) for name in group.producers]:
        module.weight[list(REMOVED)] = 0
        module.bias[list(REMOVED)] = 0


# --- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_and_cost_are_the_published_ones(name: str) -> None:
    net = shape_of(name, 224)
    num_parameters, entries, giga, digit = PUBLISHED[name]
    assert parameters(net) == num_parameters
    assert len(net.state_dict()) == entries
    assert flops(net, (3, 224, 224)) / 1e9 == pytest.approx(giga, abs=digit / 2)


def test_nagadomi_cost_is_that_of_its_table() -> None:
    convs = [(3, 64, 32), (64, 64, 32), (64, 128, 16), (128, 128, 16), (128, 256, 8)]
    convs += [(256, 256, 8)] * 3
    dense = [(256 * 4 * 4, 1024), (1024, 1024), (1024, 1000)]
    net = shape_of("vgg_nagadomi", 32)
    macs = sum(9 * ic * oc * edge**2 for ic, oc, edge in convs) + sum(i * o for i, o in dense)
    stored = sum((9 * ic + 1) * oc for ic, oc, _ in convs) + sum((i + 1) * o for i, o in dense)
    assert flops(net, (3, 32, 32)) == macs
    assert parameters(net) == stored


def test_resnet20_cost_is_that_of_the_paper() -> None:
    """He et al. 2016, table 6: 0.27 M parameters; two of its shortcuts are projected here."""
    net = library("resnet20")
    projected = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert parameters(net) - projected == 269_722
    assert (
        flops(net, (3, 32, 32))
        == sum(
            edge**2 * (9 * (ic * oc + 5 * oc * oc) + (ic * oc if edge < 32 else 0))
            for edge, ic, oc in ((32, 16, 16), (16, 16, 32), (8, 32, 64))
        )
        + 9 * 3 * 16 * 32**2
        + 64 * CLASSES
    )


def torchvision_modules(name: str) -> tuple[list[str], list[str]]:
    """Return torchvision's modules with weights: convolutions and linear layers, BatchNorms."""
    if name.startswith("vgg16"):
        places = VGG16_BN_CONVS if name.endswith("bn") else VGG16_CONVS
        norms = [f"features.{i + 1}" for i in places] if name.endswith("bn") else []
        return [f"features.{i}" for i in places] + [f"classifier.{i}" for i in (0, 3, 6)], norms
    if name == "mobilenet_v2":
        firsts = ["features.0.0", "features.18.0", "features.1.conv.0.0"]
        firsts += [f"features.{i}.conv.{j}.0" for i in range(2, 18) for j in range(2)]
        projects = ["features.1.conv.1", *(f"features.{i}.conv.2" for i in range(2, 18))]
        norms = [first[:-1] + "1" for first in firsts]
        norms += [project[:-1] + str(int(project[-1]) + 1) for project in projects]
        return [*firsts, *projects, "classifier.1"], norms
    convs, depths = RESNETS[name]
    units = [f"layer{i}.{j}" for i, depth in enumerate(depths, 1) for j in range(depth)]
    shortcuts = [f"layer{i}.0.downsample" for i in range(1 if convs == 3 else 2, 5)]
    names = [f"{unit}.conv{k}" for unit in units for k in range(1, convs + 1)]
    norms = ["bn1", *(name.replace("conv", "bn") for name in names)]
    norms += [f"{shortcut}.1" for shortcut in shortcuts]
    return ["conv1", "fc", *names, *(f"{shortcut}.0" for shortcut in shortcuts)], norms


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_are_all_of_torchvisions(name: str) -> None:
    layers, norms = torchvision_modules(name)
    biased = (
        layers if name.startswith("vgg") else [n for n in layers if n in ("fc", "classifier.1")]
    )
    kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {f"{layer}.weight" for layer in layers} | {f"{layer}.bias" for layer in biased}
    expected |= {f"{norm}.{kind}" for norm in norms for kind in kinds}
    assert set(shape_of(name, 224).state_dict()) == expected


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    found = {key: tuple(value.shape) for key, value in shape_of(name, 224).state_dict().items()}
    assert {key: found.get(key) for key in TORCHVISION[name]} == TORCHVISION[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_activation_has_a_record(name: str) -> None:
    nodes = shape_of(name, 224).graph.nodes
    assert sum(isinstance(node, Relu) for node in nodes) == NUM_RELUS[name]


@pytest.mark.parametrize("name", NAMES)
def test_narrow_network_learns_in_all_parameters(name: str) -> None:
    net = make_model(name, CLASSES, in_channels=1, width=0.125)
    x = torch.randn(4, 1, 32, 32)
    loss = nn.functional.cross_entropy(net(x), torch.arange(4))
    loss.backward()
    head = Network.of(net, (1, 32, 32)).graph.head()
    assert net.get_submodule(head).out_features == CLASSES
    still = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    # Batch statistics cancel the gradient of the bias of a convolution before BatchNorm.
    assert [n for n in still if not (n.startswith("features") and n.endswith("bias"))] == []
    assert loss.item() == pytest.approx(math.log(CLASSES), rel=0.5)


@pytest.mark.parametrize(
    ("channels", "rounded"), [(1, 8), (11.9, 16), (12, 16), (16, 16), (64, 64), (19, 24), (33, 32)]
)
def test_width_is_a_near_multiple_of_eight(channels: float, rounded: int) -> None:
    assert round_width(channels) == rounded


def test_documented_table_is_that_of_the_code(root: Path) -> None:
    text = (root / "docs/models.md").read_text(encoding="utf-8")
    rows = []
    for name in NAMES:
        large = shape_of(name, 224)
        with torch.device("meta"):
            narrow = make_model(name, CLASSES)
        cells = [f"`{name}`", len(block_ends(large.graph)), len(channel_groups(large.graph))]
        for net, edge in ((large, 224), (narrow, 32)):
            cells += [f"{parameters(net):,}", f"{flops(net, (3, edge, edge)) / 1e9:.3f} G"]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    assert [line for line in text.splitlines() if line.endswith(" G |")] == rows


# --- removal of channels ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_removing_silent_channels_of_any_group_keeps_the_output(name: str) -> None:
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    reference = small(name)
    groups = channel_groups(reference.graph)
    assert len(groups) == NUM_GROUPS[name]
    assert len({group.name for group in groups}) == len(groups)
    for group in groups:
        net = copy.deepcopy(reference)
        silence(net, group)
        expected = net(x)
        channels = group.channels(net)
        remove_channels(net, group, others(channels))
        assert group.channels(net) == channels - len(REMOVED)
        torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-9, msg=group.name)


@pytest.mark.parametrize("name", NAMES)
def test_removing_all_groups_at_once_keeps_the_output(name: str) -> None:
    net = small(name)
    groups = channel_groups(net.graph)
    for group in groups:
        silence(net, group)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected, before = net(x), parameters(net)
    for group in groups:
        remove_channels(net, group, others(group.channels(net)))
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-9)
    assert parameters(net) < before
    assert channel_groups(net.graph) == groups


@pytest.mark.parametrize("name", NAMES)
def test_removing_speaking_channels_changes_the_output(name: str) -> None:
    """Otherwise the tests above would pass on networks that ignore their channels."""
    reference = small(name)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = reference(x)
    for group in channel_groups(reference.graph):
        net = copy.deepcopy(reference)
        remove_channels(net, group, others(group.channels(net)))
        assert (net(x) - expected).abs().max() > 1e-4, group.name


def test_stem_of_a_narrow_mobilenet_is_a_residual_width() -> None:
    """At width 0.25 the first block has 8 channels on both sides, and so a shortcut."""
    for width, offered in ((0.5, True), (0.25, False)):
        net = library("mobilenet_v2", width)
        assert ("features.0.0" in [group.name for group in channel_groups(net.graph)]) == offered


def test_flattened_pixels_of_the_imagenet_form_leave_together() -> None:
    net = small("vgg16_bn", edge=72, width=0.125)
    group = channel_groups(net.graph)[-1]
    assert group.positions == 49
    silence(net, group)
    x = torch.randn(1, 3, 72, 72, dtype=torch.float64)
    expected = net(x)
    remove_channels(net, group, others(64))
    assert net.get_submodule("classifier.0").in_features == 61 * 49
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-9)


def test_basic_block_shrinks_as_counted_by_hand() -> None:
    net = library("resnet18")
    size, before = parameters(net), layer_flops(net, (3, 32, 32))
    group = next(g for g in channel_groups(net.graph) if g.name == "layer2.0.conv1")
    remove_channels(net, group, torch.arange(120))  # of 128, stride 2: 16x16 out
    after = layer_flops(net, (3, 32, 32))
    lost = {name: before[name] - after[name] for name in before if before[name] != after[name]}
    assert lost == {"layer2.0.conv1": 8 * 64 * 9 * 256, "layer2.0.conv2": 8 * 128 * 9 * 256}
    assert size - parameters(net) == 8 * 64 * 9 + 2 * 8 + 8 * 128 * 9


def test_inverted_residual_shrinks_as_counted_by_hand() -> None:
    net = library("mobilenet_v2")
    size, cost = parameters(net), flops(net, (3, 32, 32))
    group = next(g for g in channel_groups(net.graph) if g.name == "features.2.conv.0.0")
    remove_channels(net, group, torch.arange(88))  # of 96, 32x32, between 16 and 24 channels
    assert size - parameters(net) == 8 * (16 + 2 + 9 + 2 + 24)
    assert cost - flops(net, (3, 32, 32)) == 8 * (16 + 9 + 24) * 32**2


def test_shrunk_network_still_trains() -> None:
    net = library("mobilenet_v2", 0.25)
    for group in channel_groups(net.graph):
        remove_channels(net, group, others(group.channels(net)))
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in net.parameters())


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (torch.tensor([3, 2]), "[3, 2]"),
        (torch.tensor([0, 0]), "[0, 0]"),
        (torch.tensor([], dtype=torch.int64), "[]"),
        (torch.tensor([-1, 2]), "[-1, 2]"),
        (torch.tensor([0, 16]), "[0, 16]"),
        (torch.tensor([0.0, 1.0]), "[0.0, 1.0]"),
    ],
)
def test_bad_choice_of_channels_is_refused(kept: Tensor, told: str) -> None:
    net = small("resnet18")
    group = channel_groups(net.graph)[0]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match="must be ascending int64 channels") as error:
        remove_channels(net, group, kept)
    assert str(error.value).endswith(f"within 0..15, got {told}")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("group", "told"),
    [
        (ChannelGroup("g", ("layer1.0.conv1",), ("layer2.0.bn1",), ()), "'layer2.0.bn1' must have"),
        (ChannelGroup("g", ("layer1.0.conv1",), (), ("fc",)), "'fc' must read the group's 16"),
        (
            ChannelGroup("g", ("layer1.0.conv1",), (), ("layer1.0.conv2",), 4),
            "'layer1.0.conv2' must read the group's 64 operands, reads 16",
        ),
    ],
)
def test_group_that_does_not_fit_is_refused_untouched(group: ChannelGroup, told: str) -> None:
    net = small("resnet18")
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=told):
        remove_channels(net, group, torch.arange(8))
    assert {name: value.shape for name, value in net.state_dict().items()} == shapes


# --- errors -----------------------------------------------------------------------------------


def test_unknown_model_is_told_the_known_ones() -> None:
    with pytest.raises(ConfigError) as error:
        make_model("resnet19", 10)
    assert str(error.value) == (
        "model 'resnet19' is unknown; choose one of: vgg16, vgg16_bn, vgg_nagadomi, "
        "vgg_nagadomi_bn, resnet8, resnet20, resnet18, resnet34, resnet50, mobilenet_v2, "
        "mobilenet_v2_relu"
    )


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"classes": 0}, "classes must be within 1..1000000, got 0"),
        ({"in_channels": 0}, "in_channels must be within 1..4096, got 0"),
        ({"edge": 16}, "edge must be within 32..1024, got 16"),
        ({"edge": 2000}, "edge must be within 32..1024, got 2000"),
        ({"width": 0.0}, "width must be above 0 and at most 16, got 0"),
        ({"width": math.nan}, "width must be above 0 and at most 16, got nan"),
        ({"width": 17.0}, "width must be above 0 and at most 16, got 17"),
    ],
)
def test_values_out_of_range_are_told(values: dict[str, float], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_model("vgg16", **({"classes": 10} | values))  # type: ignore[arg-type]
    assert str(error.value) == f"model 'vgg16': {told}"


@pytest.mark.parametrize("name", NAMES)
def test_smallest_input_works(name: str) -> None:
    with pytest.raises(ConfigError, match="edge must be within") as error:
        make_model(name, CLASSES, edge=1)
    smallest = int(str(error.value).split("within ")[1].split("..")[0])
    net = make_model(name, CLASSES, edge=smallest, width=0.125).eval()
    assert net(torch.zeros(1, 3, smallest, smallest)).shape == (1, CLASSES)
