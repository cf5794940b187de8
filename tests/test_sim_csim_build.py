# SPDX-License-Identifier: Apache-2.0
"""Compiling the C++, its cache, and binaries that misbehave."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from codegen.abi import Status
from codegen.emit import TEMPLATES, emit_engine
from codegen.schedule import schedule
from sim import csim
from tests.engines import ENGINES, chain_case, compiled, expected_maps, shell_engine
from tests.ladder import random_images
from winnow.compare import require_equal
from winnow.config import TargetConfig
from winnow.engine import EngineConfig
from winnow.errors import MismatchError, ToolError
from winnow.process import Finished


def project_at(folder: Path, main: str) -> Path:
    """Return a project whose test bench is `main` and whose top is empty."""
    native = f"host/{csim.NATIVE}"
    files = {"src/top.cpp": "", "host/csim_main.cpp": main, "include/a.hpp": ""}
    copied = {f"{native}/{p.name}": p.read_text() for p in (TEMPLATES / native).iterdir()}
    for name, text in {**files, **copied}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def engine_of(script: str, folder: Path) -> csim.Engine:
    """Return an engine that is a shell script."""
    return csim.Engine(shell_engine(script, folder))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'first' >&2; echo 'error: port x' >&2; exit 3", "stopped with code 3: error: port"),
        ("exit 1", "csim stopped with code 1: no message"),
        ("kill -SEGV $$", "csim stopped with code -11: no message"),
        ("echo 'status 0 1'; echo 'WARNING: s contains leftover data'", "left tokens in a stream"),
    ],
)
def test_binary_that_misbehaves_is_a_mismatch(tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        csim.execute(engine_of(script, tmp_path), tmp_path, b"", (1, 0, 1))


def test_worst_status_of_all_starts_counts(tmp_path: Path) -> None:
    script = "echo 'status 0 4 1'; echo 'status 7 2 0'; echo 'status 0 4 1'; exit 2"
    outcome = csim.execute(engine_of(script, tmp_path), tmp_path, b"", (1, 0, 1))
    found = (outcome.status, outcome.layers_run, outcome.images_run)
    assert found == (Status.BAD_SIZE, 2, 0)


def test_starts_are_spread_over_processes_in_order(tmp_path: Path) -> None:
    script = f'echo "status 0 1 1"; cp "$3" "$4"; echo x >> {tmp_path}/processes'
    for starts, most, processes in ((5, 1, 1), (5, 2, 2), (5, 3, 3), (2, 8, 2), (1, 8, 1)):
        (tmp_path / "processes").write_text("")
        images = bytes(range(16 * starts))
        engine = engine_of(script, tmp_path)
        outcome = csim.execute(engine, tmp_path, images, (2, 0, 2), processes=most)
        assert outcome.memory.shape == (starts, 16)
        assert outcome.memory.tobytes() == images
        assert len((tmp_path / "processes").read_text().split()) == processes


def test_worst_status_of_all_processes_counts(tmp_path: Path) -> None:
    script = (
        'case $(od -An -tu1 -N1 "$3") in *1) echo "status 7 2 0";; *) echo "status 0 4 1";; esac'
    )
    engine = engine_of(f'{script}; cp "$3" "$4"', tmp_path)
    outcome = csim.execute(engine, tmp_path, bytes([0] * 8 + [1] * 8), (1, 0, 1), processes=2)
    assert (outcome.status, outcome.layers_run) == (Status.BAD_SIZE, 2)


def test_failure_of_one_process_is_a_mismatch(tmp_path: Path) -> None:
    script = 'case $(od -An -tu1 -N1 "$3") in *1) exit 3;; esac; echo "status 0 1 1"; cp "$3" "$4"'
    images = bytes([0] * 8 + [1] * 8)
    with pytest.raises(MismatchError, match="csim stopped with code 3"):
        csim.execute(engine_of(script, tmp_path), tmp_path, images, (1, 0, 1), processes=2)


def test_long_work_takes_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    execute = csim.execute

    def spread(*arguments: Any, processes: int) -> csim.Outcome:
        taken.append(processes)
        return execute(*arguments, processes=processes)

    monkeypatch.setattr(csim, "execute", spread)
    monkeypatch.setattr(csim.os, "sched_getaffinity", lambda _: {0, 1, 2})
    graph = chain_case(3, 3)
    plan, images = schedule(graph, ENGINES["default"]), random_images(graph, 1, 4)
    for most in (csim.CYCLES_ALONE, 1):
        monkeypatch.setattr(csim, "CYCLES_ALONE", most)
        require_equal(expected_maps(graph, images), csim.run(compiled("default"), plan, images))
    assert taken == [1, 3]


@pytest.mark.parametrize("amd", [False, True])
def test_stream_reports_leftover_tokens(tmp_path: Path, amd: bool) -> None:
    main = (
        "#include <cstdio>\n#include <fstream>\n#include <hls_stream.h>\n"
        "int main(int, char** argv) {\n"
        "  std::ofstream output(argv[4]);\n"
        '  std::puts("status 0 1");\n'
        "  hls::stream<int> stream;\n"
        "  stream.write(1);\n"
        "}\n"
    )
    engine = csim.build(project_at(tmp_path / "p", main), tmp_path / "cache", amd=amd)
    with pytest.raises(MismatchError, match=r"csim left tokens in a stream: .*leftover data"):
        csim.execute(engine, tmp_path, b"", (1, 0, 1))


def test_reading_an_empty_stream_ends_the_program(tmp_path: Path) -> None:
    main = (
        "#include <hls_stream.h>\n"
        "int main() {\n"
        "  hls::stream<int> stream;\n"
        "  for (int i = 0; i < 20000; i++) stream.write(i);\n"
        "  for (int i = 0; i < 20000; i++) if (stream.read() != i) return 1;\n"
        "  if (!stream.empty()) return 1;\n"
        "  stream.write(3);\n"
        "  if (stream.read() != 3) return 1;\n"
        "  stream.read();\n"
        "}\n"
    )
    engine = csim.build(project_at(tmp_path / "p", main), tmp_path / "cache")
    message = r"csim stopped with code 3: error: stream 'hls::stream<int>' is read while empty"
    with pytest.raises(MismatchError, match=message):
        csim.execute(engine, tmp_path, b"", (1, 0, 1))


def test_fifo_of_rows_is_deeper_than_bursts_run_ahead(tmp_path: Path) -> None:
    """plan_rows sends a row with its burst: a shallower FIFO would hang read_features."""
    emit_engine(tmp_path, EngineConfig(), TargetConfig())
    reader = tmp_path / "include" / "winnow" / "feature_reader.hpp"
    text = reader.read_text()
    assert "kReadAhead = 4;" in text
    reader.write_text(text.replace("kReadAhead = 4;", "kReadAhead = 8;"))
    with pytest.raises(ToolError) as caught:
        csim.build(tmp_path, tmp_path / "cache")
    assert caught.value.log is not None
    assert "rows wait while bursts are requested ahead of them" in caught.value.log.read_text()


def test_concurrent_builds_compile_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run = csim.run_command

    def counting(command: list[str]) -> Finished:
        calls.append(command)
        return run(command)

    monkeypatch.setattr(csim, "run_command", counting)
    project = project_at(tmp_path / "p", "int main() {}\n")
    with ThreadPoolExecutor(4) as pool:
        engines = list(pool.map(lambda _: csim.build(project, tmp_path / "cache"), range(4)))
    assert len(set(engines)) == len(calls) == 1
    assert os.access(engines[0].binary, os.X_OK)


def test_cache_follows_the_sources(tmp_path: Path) -> None:
    project = project_at(tmp_path / "p", "int main() {}\n")
    first = csim.build(project, tmp_path / "cache")
    (project / "include" / "a.hpp").write_text("// changed\n")
    second = csim.build(project, tmp_path / "cache")
    assert first != second
    (project / "include" / "a.hpp").write_text("")
    assert csim.build(project, tmp_path / "cache") == first


def test_compile_error_keeps_its_log_and_no_binary(tmp_path: Path) -> None:
    project = project_at(tmp_path / "p", "int main() { return missing; }\n")
    with pytest.raises(ToolError, match=r"g\+\+ failed on '.*p' with exit code 1; see") as caught:
        csim.build(project, tmp_path / "cache")
    assert caught.value.exit_code == 1
    assert caught.value.command.startswith("g++ -std=c++14")
    assert caught.value.log is not None
    assert "was not declared" in caught.value.log.read_text()
    assert not list((tmp_path / "cache").rglob("csim"))


def test_missing_compiler_and_headers_name_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_at(tmp_path / "p", "int main() {}\n")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(ToolError, match=r"g\+\+ is missing; install it with: apt-get install"):
            csim.build(project, tmp_path / "cache")
    monkeypatch.setattr(csim.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ToolError, match=r"ap_int\.h is missing .* run: make setup"):
        csim.build(project, tmp_path / "cache", amd=True)


@pytest.mark.parametrize("name", ENGINES)
def test_generated_code_compiles_without_warnings(name: str) -> None:
    log = (compiled(name).binary.parent / "compile.log").read_text()
    command, *rest = log.splitlines()
    assert command.startswith(f"g++ {' '.join(csim.FLAGS)}")
    assert {"-Wall", "-Wextra"} <= set(csim.FLAGS)
    assert rest == []
