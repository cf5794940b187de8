# SPDX-License-Identifier: Apache-2.0
"""The stage `prune_channels`: budgets met, resumed bit for bit, exact, refused in time."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import quant.stages.train
import quant.train.training as training
from codegen.lower import lower_checkpoint
from quant.allocate.flops import flops
from quant.allocate.layer_cost import cost_terms, total
from quant.build import Build, load_compact, load_trained, new_network
from quant.data import Samples, Split
from quant.data.augment import Augmentation
from quant.models.library import make_model
from quant.network.network import Network, backbone
from quant.network.structure import channel_counts
from quant.prune_channels.cascade import level_epochs, level_shares
from quant.prune_channels.task import Task
from quant.run import STAGES, run_stage
from quant.stages.prune_channels import METHODS as CHANNEL_METHODS
from quant.train.resume import Resume
from quant.train.training import Plan
from tests.engines import expected_maps
from tests.ladder import multiplies
from winnow.artefact import Record, load_arrays
from winnow.config import (
    ChannelPruningConfig,
    Config,
    ModelConfig,
    PruneConfig,
    QuantizeConfig,
    TrainConfig,
)
from winnow.errors import ArtefactError, ConfigError
from winnow.flow import stage_inputs

TINY = Config(
    model=ModelConfig(channels=(16, 16), pool_after=(1, 2), exit_after=(1,)),
    train=TrainConfig(epochs=2, batch=128),
    prune_channels=ChannelPruningConfig(
        method="cascade",
        budget="flops",
        share=0.4,
        multiple=4,
        levels=2,
        widths=(50,),
        block_epochs=1,
        epochs=4,
    ),
    prune=PruneConfig(keep=2, steps=1, epochs=1),
    quantize=QuantizeConfig(budget_share=1.0, epochs=1),
)
METHODS = tuple(CHANNEL_METHODS)


def build_at(out: Path, config: Config = TINY) -> Build:
    return Build(config, out, torch.device("cpu"), config_path="configs/tiny.toml")


def with_keys(build: Build, **keys: object) -> Build:
    """Return the build with other keys of [prune_channels]."""
    config = build.config
    return replace(
        build, config=replace(config, prune_channels=replace(config.prune_channels, **keys))
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A trained build, not narrowed; tests must not change it."""
    build = build_at(tmp_path_factory.mktemp("trained"))
    run_stage(STAGES["train"], build)
    return build


def copy_of(build: Build, out: Path) -> Build:
    """Return a copy of a build in another folder."""
    out.mkdir(exist_ok=True)
    for path in build.out.glob("*.*"):
        (out / path.name).write_bytes(path.read_bytes())
    return replace(build, out=out)


def numbers(build: Build) -> dict:
    return Record.load(build.out / "prune_channels.json", "").numbers


def share_of(build: Build) -> float:
    """Return the share of the budget's cost that is left, from the narrowed network itself."""
    before, after = backbone(new_network(build)), load_compact(build)
    costs = [total(cost_terms(n, build.config), channel_counts(n)) for n in (after, before)]
    return costs[0] / costs[1]


@pytest.mark.parametrize("method", METHODS)
def test_interrupted_channel_pruning_ends_with_the_same_bits(
    trained: Build, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = [with_keys(copy_of(trained, tmp_path / name), method=method) for name in "ab"]
    calls = []
    step = training._step

    def counting(*args: object) -> float:
        calls.append(1)
        if len(calls) in stops:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(training, "_step", counting)
    stops: set[int] = set()
    run_stage(STAGES["prune_channels"], builds[0])
    whole = len(calls)
    stops = {whole + 2 * whole // 5, whole + 4 * whole // 5}
    for _ in stops:
        with pytest.raises(KeyboardInterrupt):
            run_stage(STAGES["prune_channels"], builds[1])
        assert list(builds[1].out.glob("prune_channels.resume.*.npz"))
        assert not (builds[1].out / "prune_channels.npz").exists()
    run_stage(STAGES["prune_channels"], builds[1])
    assert len(calls) < 2.6 * whole  # it did resume: 2.8 when every run starts anew
    assert not list(builds[1].out.glob("*resume*"))
    want, got = (load_arrays(build.out / "prune_channels.npz", "") for build in builds)
    assert want.keys() == got.keys()
    assert all(want[name].tobytes() == got[name].tobytes() for name in want)
    left = numbers(builds[0])
    assert left["share"] == pytest.approx(share_of(builds[0]))
    assert 0.2 < left["share"] <= TINY.prune_channels.share
    assert left["channels"] == channel_counts(load_compact(builds[0]))
    assert numbers(builds[1])["channels"] == left["channels"]


@pytest.mark.parametrize("budget", ["parameters", "cycles"])
def test_other_budgets_are_met(trained: Build, tmp_path: Path, budget: str) -> None:
    build = with_keys(
        copy_of(trained, tmp_path / "b"), budget=budget, share=0.7, multiple=8, epochs=1, levels=1
    )
    run_stage(STAGES["prune_channels"], build)
    assert numbers(build)["share"] == pytest.approx(share_of(build))
    assert 0.3 < numbers(build)["share"] <= 0.7


@pytest.mark.parametrize(("method", "epochs"), [("cascade", 2), ("least_squares", 0)])
def test_narrowed_network_is_exact_to_the_graph(
    trained: Build, tmp_path: Path, method: str, epochs: int
) -> None:
    build = with_keys(copy_of(trained, tmp_path / "b"), method=method, epochs=epochs)
    for stage in STAGES.values():
        run_stage(stage, build)
    counts = numbers(build)["channels"]
    golden = load_arrays(build.out / "golden.npz", "")
    graph = lower_checkpoint(build.config, build.out)
    widths = {layer.name: layer.output.channels for layer in multiplies(graph)[:-1]}
    assert widths == counts
    assert sum(counts.values()) < 32
    for name, integers in expected_maps(graph, golden["images"]).items():
        np.testing.assert_array_equal(golden[f"layer.{name}"], integers)


def test_without_a_method_the_weights_stay(trained: Build, tmp_path: Path) -> None:
    build = with_keys(copy_of(trained, tmp_path / "b"), method="none")
    run_stage(STAGES["prune_channels"], build)
    assert numbers(build)["channels"] == {"conv1": 16, "conv2": 16}
    assert numbers(build)["share"] == 1
    net = load_trained(build)
    want, got = backbone(net).state_dict(), load_compact(build).state_dict()
    assert want.keys() == got.keys()
    assert all(torch.equal(want[name], got[name]) for name in want)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("method", METHODS)
def test_library_networks_lose_channels(name: str, method: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Network.of(make_model(name, 10, edge=16, width=0.125), (3, 16, 16))
    before = copy.deepcopy(net.state_dict())
    images = torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8)
    samples = Samples(images, torch.arange(32) % 10)
    split = Split.of((samples, samples, samples), 10, Augmentation())
    keys = ChannelPruningConfig(
        method=method, budget="flops", share=0.8, levels=1, epochs=1, block_epochs=1,
        widths=(50,), multiple=4,
    )  # fmt: skip
    config = replace(TINY, prune_channels=keys)
    terms = cost_terms(net, config)
    plan = Plan("prune_channels", 1, 32, 1e-3, 0.0, 0, torch.device("cpu"))
    resume = Resume(tmp_path / "prune_channels.resume.npz", "key", "")
    task = Task(config, net, net, split, terms, 32, plan, resume)
    found = CHANNEL_METHODS[method](task)
    assert 0.3 < total(terms, channel_counts(found.net)) / task.full <= 0.8
    assert flops(found.net, (3, 16, 16)) == total(terms, channel_counts(found.net))
    assert found.net.eval()(torch.rand(2, 3, 16, 16)).shape == (2, 10)
    assert len(found.history.rows) == 1
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_levels_take_equal_relative_steps_and_all_epochs() -> None:
    assert level_shares(0.125, 3) == pytest.approx([0.5, 0.25, 0.125])
    assert level_epochs(8, 3) == [2, 3, 3]
    assert level_epochs(2, 3) == [0, 1, 1]


@pytest.mark.parametrize(
    ("method", "budget", "message"),
    [
        (
            "cascade",
            "flops",
            r"0\.103, the smallest share of flops that prune_channels\.method 'cascade'",
        ),
        ("structure", "flops", r"0\.303, the smallest share of flops .* 'structure'"),
        ("cascade", "cycles", r"0\.\d{3}, the smallest share of cycles"),
    ],
)
def test_impossible_budget_stops_before_training(
    tmp_path: Path, method: str, budget: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quant.stages.train, "fit", lambda *_, **__: pytest.fail("training began"))
    build = with_keys(build_at(tmp_path), method=method, budget=budget, share=0.05)
    with pytest.raises(
        ConfigError, match=f"prune_channels.share must be at least {message}.*, got 0.05$"
    ):
        run_stage(STAGES["train"], build)


def test_narrowed_network_is_read_from_its_file_alone(trained: Build, tmp_path: Path) -> None:
    build = with_keys(copy_of(trained, tmp_path / "b"), epochs=2)
    with pytest.raises(
        ArtefactError, match=r"prune_channels\.npz' is missing; make it with: python -m"
    ):
        load_compact(build)
    run_stage(STAGES["prune_channels"], build)
    (build.out / "prune_channels.json").unlink()
    other = replace(build.config, model=ModelConfig(channels=(4,), pool_after=(1,), exit_after=()))
    net = load_compact(replace(build, config=other))
    assert net.graph.shape_of("fc") == (10,)
    assert sum(channel_counts(net).values()) < 32


def test_only_a_cycle_budget_depends_on_the_engine(trained: Build) -> None:
    def config_hash(build: Build, **engine: int) -> str:
        config = replace(build.config, engine=replace(build.config.engine, **engine))
        return stage_inputs(STAGES["prune_channels"], replace(build, config=config))["config"]

    for budget, depends in (("flops", False), ("cycles", True)):
        build = with_keys(trained, budget=budget)
        assert (config_hash(build) != config_hash(build, v_words=256)) == depends
    whole = with_keys(trained, method="none")
    assert config_hash(whole) == config_hash(with_keys(whole, share=0.1), v_words=256)
