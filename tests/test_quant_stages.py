# SPDX-License-Identifier: Apache-2.0
"""The stages on a tiny network: records, resuming bit for bit, and every message a user meets."""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

import quant.train.training as training
from codegen.check import check_graph
from codegen.interpret import interpret
from codegen.lower import lower_checkpoint
from quant.__main__ import main
from quant.build import Build, load_bits, load_quantized
from quant.network.rewrite import tap_layers
from quant.run import STAGES, run_stage
from quant.train.resume import Resume
from tests.engines import expected_maps
from tests.ladder import change_node, multiplies
from winnow.artefact import Record, load_arrays, save_arrays
from winnow.cli import guard
from winnow.config import Config, ModelConfig, PruneConfig, QuantizeConfig, TrainConfig
from winnow.errors import ArtefactError, ConfigError, GraphError
from winnow.srbs import to_sub_rows

TINY = Config(
    model=ModelConfig(channels=(4, 8), pool_after=(1, 2), exit_after=(1,)),
    train=TrainConfig(epochs=6, batch=128),
    prune=PruneConfig(keep=2, steps=2, epochs=4),
    quantize=QuantizeConfig(weight_bits=(4, 8), budget_share=1.0, epochs=2),
)
ORDER = ("train", "prune_channels", "prune", "bits", "qat", "golden")


def build_at(out: Path, config: Config = TINY) -> Build:
    return Build(config, out, torch.device("cpu"), config_path="configs/tiny.toml")


def run_all(build: Build, verbs: tuple[str, ...] = ORDER) -> None:
    for verb in verbs:
        run_stage(STAGES[verb], build)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """An uninterrupted build of the tiny network; tests must not change it."""
    build = build_at(tmp_path_factory.mktemp("done"))
    run_all(build)
    return build


@pytest.fixture
def copy(done: Build, tmp_path: Path) -> Build:
    """A copy of that build which a test may spoil."""
    for path in done.out.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return replace(done, out=tmp_path)


def interrupt_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make training stop as Ctrl-C would, in the middle of an epoch."""
    step = training._step
    count = iter(range(10**9))

    def stopping(*args: object) -> float:
        if next(count) == steps:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(training, "_step", stopping)


@pytest.mark.parametrize(
    ("verb", "steps"), [("train", 20), ("prune", 9), ("prune", 20), ("qat", 12)]
)
def test_resumed_run_ends_with_the_same_bits(
    done: Build, copy: Build, verb: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (f"{verb}.json", f"{verb}.npz"):
        (copy.out / name).unlink()
    with monkeypatch.context() as patch:
        interrupt_after(steps, patch)
        with pytest.raises(KeyboardInterrupt):
            run_stage(STAGES[verb], copy)
    resume = copy.out / f"{verb}.resume.npz"
    assert int(load_arrays(resume, "")["epoch"]) >= 1
    assert not (copy.out / f"{verb}.npz").exists()
    run_stage(STAGES[verb], copy)
    want, got = (load_arrays(b.out / f"{verb}.npz", "") for b in (done, copy))
    assert want.keys() == got.keys()
    assert all(want[name].tobytes() == got[name].tobytes() for name in want)
    assert not resume.exists()


def test_second_run_does_nothing(done: Build, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.out.rglob("[!.]*")}
    run_all(done)
    assert capsys.readouterr().out == "".join(f"{verb}: up to date\n" for verb in ORDER)
    assert {path: path.stat().st_mtime_ns for path in done.out.rglob("[!.]*")} == before


def test_records_hold_accuracies_and_seconds(done: Build) -> None:
    for verb, number in (("train", "fp32"), ("prune", "pruned"), ("qat", "quantized")):
        record = Record.load(done.out / f"{verb}.json", "")
        assert 50 < record.numbers[f"{number}_accuracy"] <= 100
        assert record.numbers["seconds"] >= 0


def event_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a TensorBoard file: length, checksum, content, checksum."""
    start = 0
    while start < len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        yield content[start + 12 : start + 12 + length]
        start += 16 + length


def test_history_has_a_row_per_epoch_and_is_in_the_logs(done: Build) -> None:
    history = Record.load(done.out / "train.json", "").numbers["history"]
    assert [len(column) for column in history.values()] == [TINY.train.epochs] * 3
    loss, validation = history["loss"], history["validation_accuracy"]
    assert loss[-1] < 0.8 * loss[0]
    assert [value is not None for value in validation] == [False, False, False, False, True, False]
    (events,) = (done.out / "logs" / "train").iterdir()
    logged: dict[str, list[float]] = {}
    for record in event_records(events.read_bytes()):
        for value in Event.FromString(record).summary.value:
            logged.setdefault(value.tag, []).append(value.simple_value)
    np.testing.assert_allclose(logged["train/loss"], loss, rtol=1e-6)
    assert len(logged["train/validation_accuracy"]) == 1


def test_golden_is_exact_and_equals_the_interpreter(done: Build) -> None:
    golden = load_arrays(done.out / "golden.npz", "")
    assert golden["images"].shape == (360, 1, 16, 16)
    assert golden["images"].dtype == np.uint8
    assert golden["layer.fc"].dtype == np.int32
    assert golden["layer.fc"].shape == (360, 10, 1, 1)
    assert golden["layer.conv2"].dtype == np.uint8
    maps = expected_maps(lower_checkpoint(TINY, done.out), golden["images"])
    assert list(maps) == ["conv1", "conv2", "fc"]
    for name, integers in maps.items():
        np.testing.assert_array_equal(golden[f"layer.{name}"], integers)
    guess = golden["layer.fc"][:, :, 0, 0].argmax(1)
    accuracy = 100 * (guess == golden["labels"]).mean()
    quantized = Record.load(done.out / "qat.json", "").numbers["quantized_accuracy"]
    assert accuracy == pytest.approx(quantized)


def test_all_layers_but_the_first_are_pruned(done: Build) -> None:
    keep = Record.load(done.out / "prune.json", "").numbers["keep"]
    assert keep == {"conv1": 1, "conv2": 2, "fc": 2}
    lowered = {layer.name: layer.keep for layer in multiplies(lower_checkpoint(TINY, done.out))}
    assert lowered == keep


def test_pattern_survives_quantization_aware_training(done: Build) -> None:
    pruned, trained = (load_arrays(done.out / f"{verb}.npz", "") for verb in ("prune", "qat"))
    net = load_quantized(done)
    for name, layer in list(tap_layers(net).items())[TINY.prune.skip :]:
        mask = pruned[f"{name}.mask"]
        held = to_sub_rows(mask.reshape(len(mask), layer.in_channels, -1)).sum(axis=2)
        assert (held == 2).all()
        np.testing.assert_array_equal(trained[f"{name}.mask"], mask)
        assert (layer.weight_quant(layer.u).value.detach().numpy()[mask == 0] == 0).all()
        assert (trained[f"{name}.weight"] != pruned[f"{name}.weight"]).any()


def test_a_corrupted_fc_weight_is_seen(done: Build) -> None:
    golden = load_arrays(done.out / "golden.npz", "")
    graph = lower_checkpoint(TINY, done.out)
    fc = multiplies(graph)[-1]
    weight = fc.weight.copy()
    largest = np.unravel_index(np.abs(weight).argmax(), weight.shape)
    weight[largest] -= np.sign(weight[largest])
    broken = change_node(graph, -1, weight=weight)
    logits = interpret(broken, golden["images"])["fc"]
    assert set(np.argwhere(logits != golden["layer.fc"])[:, 1]) == {largest[0]}


def test_fc_weight_outside_the_pattern_is_refused(done: Build) -> None:
    graph = lower_checkpoint(TINY, done.out)
    fc = multiplies(graph)[-1]
    weight = fc.weight.copy()
    weight.reshape(10, graph.type_of(fc.inputs[0]).channels, -1)[3, :3, 0] = 1
    broken = change_node(graph, -1, weight=weight)
    with pytest.raises(GraphError, match=r"node 'fc': a sub-row of 8 channels must hold at most"):
        check_graph(broken)


def test_missing_checkpoint_names_the_command(tmp_path: Path) -> None:
    match = r"stage 'train' must run first: it has not run; run: python -m quant train --config co"
    with pytest.raises(ArtefactError, match=match):
        run_stage(STAGES["prune"], build_at(tmp_path))


def test_damaged_checkpoint_names_the_command(copy: Build) -> None:
    path = copy.out / "train.npz"
    path.write_bytes(path.read_bytes()[:-100])
    match = r"stage 'train' must run first: train\.npz is not the one it made; run: python -m quant"
    with pytest.raises(ArtefactError, match=match):
        run_stage(STAGES["prune"], copy)


def test_damaged_checkpoint_is_seen_by_lowering(copy: Build) -> None:
    path = copy.out / "qat.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtefactError, match=r"qat\.npz' is damaged .*; delete it and run: python"):
        lower_checkpoint(TINY, copy.out)


def test_network_for_other_images_is_rejected(copy: Build) -> None:
    other = replace(TINY, data=replace(TINY.data, image_size=24))
    match = (
        r"qat\.npz' reads images of \[1, 16, 16\], those of data.source are \[1, 24, 24\]; "
        r"run: python -m quant qat"
    )
    with pytest.raises(ArtefactError, match=match):
        lower_checkpoint(other, copy.out)


def test_widths_of_another_network_are_rejected(copy: Build) -> None:
    path = copy.out / "bits.json"
    record = Record.load(path, "")
    bits = record.numbers["bits"]
    for wrong in ({**bits, "conv3": 8}, {**bits, "conv1": 9}, None):
        replace(record, numbers={**record.numbers, "bits": wrong}).save(path)
        with pytest.raises(ArtefactError, match=r"bits\.json' belongs to another model; run: py"):
            load_bits(copy)


def test_checkpoint_with_other_names_is_rejected(copy: Build) -> None:
    path = copy.out / "qat.npz"
    arrays = load_arrays(path, "")
    save_arrays(path, arrays | {"extra": np.zeros(1)})
    with pytest.raises(ArtefactError, match=r"another model \(it has an unknown 'extra'\)"):
        lower_checkpoint(TINY, copy.out)
    arrays.pop("fc.bias")
    save_arrays(path, arrays)
    with pytest.raises(ArtefactError, match=r"another model \(it lacks 'fc\.bias'\)"):
        lower_checkpoint(TINY, copy.out)


def test_damaged_resume_file_names_the_command(copy: Build) -> None:
    (copy.out / "train.json").unlink()
    (copy.out / "train.resume.npz").write_bytes(b"not a zip")
    with pytest.raises(ArtefactError, match=r"train\.resume\.npz' is damaged .* delete it and run"):
        run_stage(STAGES["train"], copy)


def test_stale_resume_file_is_ignored(done: Build, copy: Build) -> None:
    (copy.out / "train.json").unlink()
    save_arrays(copy.out / "train.resume.npz", {"key": np.array("other"), "epoch": np.array(3)})
    run_stage(STAGES["train"], copy)
    assert (copy.out / "train.npz").read_bytes() == (done.out / "train.npz").read_bytes()


def test_diverging_training_is_a_config_error(tmp_path: Path) -> None:
    wild = replace(TINY, train=replace(TINY.train, learning_rate=10.0, weight_decay=1.0))
    build = build_at(tmp_path, wild)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_step", lambda *_: float("nan"))
        with pytest.raises(
            ConfigError, match=r"train: the loss became nan in epoch 1; lower .*10$"
        ):
            run_stage(STAGES["train"], build)


@pytest.fixture
def argv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The command line of the CLI under test, with a valid configuration."""
    config = tmp_path / "tiny.toml"
    config.write_text("[train]\nepochs = 1\n")
    arguments = ["quant", "train", "--config", str(config), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    return arguments


def test_cuda_without_a_device_is_one_line(
    argv: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv.extend(["--device", "cuda"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert guard(main) == 1
    error = capsys.readouterr().err
    assert error == "error: --device cuda: this machine has no CUDA device; use --device cpu\n"


def test_impossible_number_of_threads_is_one_line(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    argv.extend(["--threads", "0"])
    assert guard(main) == 1
    assert capsys.readouterr().err == "error: --threads must be at least 1, got 0\n"


def test_missing_input_is_one_line_and_exit_code_1(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    argv[1] = "golden"
    assert guard(main) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: '")
    assert error.count("\n") == 1


@pytest.mark.parametrize("verb", [None, *ORDER])
def test_help_is_complete(
    verb: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["quant", *([verb] if verb else []), "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    text = capsys.readouterr().out
    expected = (
        ORDER if verb is None else ("--config", "--out", "--device", "--threads", "--progress")
    )
    assert all(word in text for word in expected)


@pytest.mark.parametrize("verb", ["prune", "qat"])
def test_stage_has_its_own_batch(
    done: Build, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done.out, tmp_path / "copy")
    (tmp_path / "copy" / f"{verb}.json").unlink()
    section = {"prune": "prune", "qat": "quantize"}[verb]
    changed = replace(getattr(TINY, section), batch=7)
    sizes = []

    def stop(*arguments: Any, **_: Any) -> NoReturn:
        sizes.append(arguments[3].batch)
        raise KeyboardInterrupt

    monkeypatch.setattr(f"quant.stages.{verb}.fit", stop)
    build = replace(done, out=tmp_path / "copy", config=replace(TINY, **{section: changed}))
    with pytest.raises(KeyboardInterrupt):
        import_module(STAGES[verb].module).run(build, Resume(tmp_path / "none.npz", "", ""))
    assert sizes == [7]


def test_engine_size_trains_nothing_again(done: Build, capsys: pytest.CaptureFixture[str]) -> None:
    engine = replace(TINY.engine, v_words=TINY.engine.v_words // 2)
    run_all(replace(done, config=replace(TINY, engine=engine)), ORDER[:3])
    assert capsys.readouterr().out == "".join(f"{v}: up to date\n" for v in ORDER[:3])


def test_file_of_another_configuration_names_the_stage_to_run(copy: Build) -> None:
    other = replace(TINY, prune=replace(TINY.prune, keep=3))
    match = r"stage 'prune' must run first: its config changed; run: python -m quant prune --config"
    with pytest.raises(ArtefactError, match=match):
        run_stage(STAGES["bits"], replace(copy, config=other))


def test_impossible_budget_stops_the_stage_and_keeps_its_record(copy: Build) -> None:
    before = (copy.out / "bits.json").read_bytes()
    other = replace(TINY, quantize=replace(TINY.quantize, budget_share=0.1))
    with pytest.raises(ConfigError, match=r"quantize\.budget_share must be at least 0\.\d+"):
        run_stage(STAGES["bits"], replace(copy, config=other))
    assert (copy.out / "bits.json").read_bytes() == before
