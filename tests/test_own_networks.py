# SPDX-License-Identifier: Apache-2.0
"""Users' networks of all kinds: exact integers after `check`, or a refusal in one line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from codegen.stages import check
from tests.conftest import ROOT
from tests.own import bad, either, good
from winnow.config import Config, ModelConfig, QuantizeConfig
from winnow.errors import (
    GraphError,
    LoweringError,
    NetworkError,
    ScheduleError,
    WinnowError,
)
from winnow.flow import Build, Result

CONFIG = Config(quantize=QuantizeConfig(budget_share=1.0))
NAMED = (LoweringError, NetworkError, ScheduleError, GraphError)


def networks(module: ModuleType, *without: str) -> dict[str, Callable[..., Any]]:
    """Return the functions and classes of a file that make a network."""
    found = {
        name: value
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__
    }
    return {name: value for name, value in found.items() if name not in without}


def run(file: str, name: str, **model: Any) -> Result:
    own = ModelConfig(name=f"own/{file}.py:{name}", base=ROOT / "tests", **model)
    return check.run(Build(replace(CONFIG, model=own), Path("never"), config_path="x.toml"), {})


GOOD = networks(good, "conv", "tail", "Conv3", "with_arguments")
EITHER = networks(either)


@pytest.mark.parametrize("name", GOOD)
def test_network_of_a_user_gives_exact_integers(name: str) -> None:
    assert run("good", name).numbers["layers"] >= 2


def test_arguments_reach_the_function() -> None:
    arguments = (("channels", 5), ("names", ("a", "b")), ("scale", 0.5))
    assert run("good", "with_arguments", arguments=arguments).numbers["layers"] == 4


@pytest.mark.parametrize("name", EITHER)
def test_operation_is_exact_or_refused_by_name(name: str) -> None:
    refusal = ""
    try:
        run("either", name)
    except NAMED as error:
        refusal = str(error)
    assert re.match(r"$|(network|layer|node|the network ends with) '\w|'\w", refusal)
    assert "\n" not in refusal


def test_only_a_quantized_file_has_widths() -> None:
    """A pool standing alone has no weights whose width could be another."""
    assert run("good", "other_pools").summary.endswith("modelled cycles at the widest widths,")


def test_steps_of_the_host_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    run("good", "LogSoftmax")
    assert capsys.readouterr().out.endswith(
        "check: 'log_softmax' (Softmax) at the end runs on the host: the label is the same without "
        "it\n"
    )


REFUSED = {
    "circular": "'1' (Conv2d) pads with 'circular', must be 'zeros'",
    "reflect": "'1' (Conv2d) pads with 'reflect', must be 'zeros'",
    "conv_with_own_forward": "'1' is a Standardized, a Conv2d with methods of its own",
    "linear_with_own_forward": "'1' is a Doubled, a Linear with methods of its own",
    "norm_with_own_forward": "'1' is a Frozen, a BatchNorm2d with methods of its own",
    "conv_with_own_inner": "'1' is a OwnInner, a Conv2d with methods of its own",
    "forward_hook": "'0' (Conv2d) has a forward hook, which the flow does not see; remove it",
    "pre_hook": "'1' (ReLU) has a forward pre-hook, which the flow does not see",
    "hook_of_the_whole": "network 'Sequential': it has a forward hook",
    "replaced_forward": "'1' (ReLU) has a forward that was replaced",
    "weight_norm": "'1' (ParametrizedConv2d) computes its 'weight' by a parametrization; store",
    "old_spectral_norm": "store the result with: torch.nn.utils.remove_spectral_norm(layer)",
    "tied_weights": "'3' shares its 'weight' with '1'; the flow trains every layer by itself",
    "one_layer_twice": "layer '1' runs twice; every layer must have its own module",
    "gelu": "'1' is a GELU, which the flow does not know; it knows the modules",
    "leaky": "'1' is a LeakyReLU, which the flow does not know",
    "Silu": "calls the function 'mul', which the flow does not know",
    "nan_weights": "'0' (Conv2d) holds NaN or infinity in its 'weight'; train it again",
    "infinite_variance": "'1' (BatchNorm2d) holds NaN or infinity in its 'running_var'",
    "statistics_of_the_batch": "takes the statistics of the batch in evaluation too; leave track",
    "lazy": "has no weights yet; run it once",
    "Branching": "its forward must neither branch on values",
    "BranchingOnSizes": "its forward must neither branch on values or sizes",
    "Looping": "its forward must neither branch on values",
    "Raising": "network 'Raising' cannot be read as a graph at bad.py:",
    "RaisingWhenMade": "raises AttributeError at bad.py:",
    "OnlyWhileReading": "read as a graph differs from the network that was given by 2 of its",
    "Normalized": "; to normalise images, set data.mean and data.std",
    "OwnTensor": "computes with the tensor 'scale' outside of a layer",
    "TwoImages": "takes a second input 'y'; it must take one, images",
    "TwoResults": "returns something else than one tensor",
    "OverwritesInput": "over which another operation has written in place",
    "WrongSize": "'fc1' (Linear) must read a vector of 64 values, got (16,)",
    "AlwaysDrops": "drops values in evaluation too; use F.dropout(x, p, self.training)",
    "three_channels": "'0' (Conv) reads images of 3 channels, those of the data have 1; change",
    "seven_classes": "ends with 7 values, the data have 10 classes; give its last layer 10",
    "ends_with_a_map": "ends with a map [10, 16, 16], the data have 10 classes; give its last",
    "softmax_over_rows": "takes the softmax over another axis than the classes; use dim=1",
    "no_layers": "ends with 16 values",
    "relu6": "'1' is a ReLU with the limit 6; use one without",
    "softmax_in_the_middle": "'1' (Softmax) reads 'layer_0'; the engine runs",
    "huge_bias": "it is far larger than the layer's sums: train with smaller biases",
    "norm_of_a_flattened_map": "'2' (BatchNorm) reads 'layer_0'",
    "norm_of_the_images": "'0' (BatchNorm) reads 'input'",
    "recurrent": "'1' is a RNN, which the flow does not know",
    "upsampled": "'1' is a Upsample, which the flow does not know",
    "transposed": "'1' is a ConvTranspose2d, which the flow does not know",
    "OwnCall": "it has a __call__ of its own, which the flow does not see; write what it does in",
    "Alternating": "itself gives other results when it sees the same images again; its forward",
    "Ending": "network 'Ending' ends Python at bad.py:304: 3; its forward must only compute",
    "ReturnsTable": "network 'ReturnsTable' returns a tensor and a table of others; return the",
    "negative_variance": "'Sequential' itself gives NaN or infinity for random images; look for",
    "huge_weights": "'0' has weights or reads values of 1.09951e+12 or more; scale the weights",
    "data_parallel": "is wrapped by DataParallel; give the module within, .module",
    "compiled": "is wrapped by OptimizedModule; give the module that torch.compile was given",
    "scripted": "is wrapped by ScriptModule; give the module that it was made from",
    "frozen": "train.epochs must be 0 for a network whose weights are all frozen, got 30; or set",
    "layer_alone": "'0' (Linear) must read a vector of 16 values, got (1, 16, 16)",
    "no_module": "must give an nn.Module, got int",
    "dilated": "layer 'layer_0': cannot lower Conv2d with dilation (2, 2); the engine's kernels "
    "have no gaps: set dilation=1, in a larger kernel with zeros in the gaps to compute the same",
    "dilated_depthwise": "layer 'layer_2': cannot lower Conv2d with dilation (2, 2); the engine's",
    "JoinedImages": "node 'cat': the engine joins maps that its layers write, 'input' is none; let",
    "relu_behind_a_pool": "'2' is a ReLU behind the max pool '1'; put it before the pool, which",
}
REMEDIES = {
    "gelu": "; use nn.ReLU",
    "leaky": "; use nn.ReLU",
    "Silu": " right behind a layer; two maps can only be added",
    "upsampled": "; a map cannot grow in the engine; end the network before it",
    "transposed": "; a map cannot grow in the engine; end the network before it",
}
AT_LINE = ("Branching", "Silu", "OwnTensor", "Normalized", "AlwaysDrops", "RaisingWhenMade")


@pytest.mark.filterwarnings("ignore")  # of torch, about what is refused anyway
@pytest.mark.parametrize("name", REFUSED)
def test_network_is_refused_by_name_in_one_line(name: str) -> None:
    with pytest.raises(WinnowError) as caught:
        run("bad", name)
    assert REFUSED[name] in str(caught.value)
    assert str(caught.value).endswith(REMEDIES.get(name, ""))
    assert "\n" not in str(caught.value)
    if name in AT_LINE:
        lines, first = inspect.getsourcelines(getattr(bad, name))
        found = re.search(r" at bad\.py:(\d+)", str(caught.value))
        assert found, str(caught.value)
        assert first <= int(found[1]) < first + len(lines)


def test_every_bad_network_is_tested() -> None:
    helpers = ("after", "Standardized", "Doubled", "Frozen", "OwnInner")
    assert set(networks(bad, *helpers)) == set(REFUSED)
    assert len(GOOD) + len(EITHER) + len(REFUSED) > 80


def test_settings_of_torch_are_left_alone() -> None:
    run("good", "settings_changed")
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()


def test_the_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    run("good", "sequential")
    assert torch.equal(torch.rand(1), want)
