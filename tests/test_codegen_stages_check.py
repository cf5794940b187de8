# SPDX-License-Identifier: Apache-2.0
"""What cannot work is refused before the first epoch, by name, place and remedy."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codegen.stages import check
from winnow.config import (
    ChannelPruningConfig,
    Config,
    DataConfig,
    ModelConfig,
    PruneConfig,
    QuantizeConfig,
)
from winnow.engine import EngineConfig
from winnow.errors import WinnowError
from winnow.flow import Build, Result

TINY = Config(
    model=ModelConfig(channels=(4, 8), pool_after=(1, 2), exit_after=(1,)),
    quantize=QuantizeConfig(budget_share=1.0),
)
WIDE = ModelConfig(channels=(64, 64), pool_after=(1, 2), exit_after=())
COLOUR = DataConfig(source="colour", image_size=32, train_images=200, test_images=100)


def run(config: Config) -> Result:
    return check.run(Build(config, Path("never"), config_path="x.toml"), {})


def test_network_that_works_is_scheduled() -> None:
    result = run(TINY)
    assert result.outputs == []
    assert result.numbers["layers"] == 3
    assert result.numbers["total_cycles"] > 1000
    assert not Path("never").exists()


def test_images_that_the_host_unrolls_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(replace(TINY, prune=PruneConfig(first_keep=2)))
    assert result.numbers["layers"] == 4  # the pool behind the first convolution is one, too
    told = "check: the host unrolls the images by the 3x3 kernel of the first layer, 4096 bytes "
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4), (16, 16)])
def test_chains_of_any_length_work_by_default(
    count: int, size: tuple[int, int], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(1, 256, (40, 2, *size), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(40) % 3)
    data = DataConfig(source="npz", path="x.npz", base=tmp_path)
    result = run(Config(data=data, model=ModelConfig(channels=(5,) * count)))
    assert result.numbers["layers"] == count + 1


@pytest.mark.parametrize("method", ["obs", "kernels", "pattern"])
def test_methods_keep_what_they_will(method: str) -> None:
    prune = PruneConfig(method=method, keep=1)
    config = replace(TINY, prune=prune, model=WIDE)
    dense = replace(config, prune=replace(prune, method="obs", keep=8))
    fewer = run(config).numbers["total_cycles"] < run(dense).numbers["total_cycles"]
    assert fewer == (method != "pattern")  # patterns leave sub-rows dense


def test_narrowed_networks_are_lowered_but_not_sized() -> None:
    keys = ChannelPruningConfig(method="cascade", budget="flops", share=0.5)
    assert run(replace(TINY, prune_channels=keys, model=WIDE)).summary == "3 layers can be lowered,"


REFUSED = {
    "ReLU6": (
        replace(TINY, data=COLOUR, model=ModelConfig(name="mobilenet_v2", width=0.25)),
        "'features.0.2' is a ReLU with the limit 6; use one without: its quantized output has a",
    ),
    "V banks": (
        replace(
            TINY, engine=EngineConfig(v_words=16, pt=1), model=replace(WIDE, channels=(144, 144))
        ),
        "words of a V bank, engine.v_words is 16; raise engine.v_words",
    ),
    "sums": (
        replace(TINY, engine=EngineConfig(acc_bits=16), model=WIDE),
        "its largest sum needs",
    ),
    "budget": (
        replace(TINY, quantize=QuantizeConfig(budget_share=0.1)),
        "quantize.budget_share must be at least",
    ),
    "exit": (replace(TINY, model=replace(TINY.model, exit=2)), "model.exit must be 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str) -> None:
    config, words = REFUSED[case]
    with pytest.raises(WinnowError) as caught:
        run(config)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_imagenet_form_of_a_resnet_is_accepted(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(1, 256, (40, 3, 72, 72), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(40) % 3)
    data = DataConfig(source="npz", path="x.npz", base=tmp_path)
    run(Config(data=data, model=ModelConfig(name="resnet18", width=0.125)))


def test_run_ends_before_training(root: Path, tmp_path: Path) -> None:
    (tmp_path / "net.toml").write_text("[engine]\nacc_bits = 16\n[train]\nepochs = 10000\n")
    result = subprocess.run(
        [sys.executable, "-m", "winnow", "run", "--config", str(tmp_path / "net.toml")]
        + ["--out", str(tmp_path / "out")],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: layer '")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
