# SPDX-License-Identifier: Apache-2.0
"""The records of the processes: every field reaches who reads it, and nobody else."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from codegen import configs, descriptor
from codegen.abi import EARLY_WORDS
from codegen.configs import (
    Member,
    ProcessConfig,
    Struct,
    config_structs,
    process_configs,
    struct_name,
)
from codegen.descriptor import (
    CHECKER,
    FLAGS,
    GIVEN,
    PROCESSES,
    Field,
    Read,
    layer_fields,
    readers,
)
from codegen.emit import TEMPLATES, emit_engine
from codegen.ports import PORTS
from tests.engines import ENGINES
from winnow.config import TargetConfig
from winnow.engine import EngineConfig

HEADERS = TEMPLATES / "include" / "winnow"
ENGINE = EngineConfig()
HOST_ONLY: set[str] = set()  # fields that no process reads


@cache
def chunks() -> tuple[str, ...]:
    """Return the engine's functions and structs: hand-written text up to a brace in column 0."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(HEADERS.glob("*.hpp"))]
    return tuple(chunk for text in texts for chunk in re.split(r"^\}", text, flags=re.MULTILINE))


def config(process: str) -> ProcessConfig:
    return next(each for each in process_configs(ENGINE) if each.process == process)


def test_every_field_is_read_or_is_for_the_host_only() -> None:
    unread = {field.name for field in layer_fields(ENGINE) if not readers(field)}
    assert unread == HOST_ONLY


def test_checker_reads_the_fields_that_the_table_says() -> None:
    bounds = {f.name for f in layer_fields(ENGINE) if f.bias}  # has_no_bound is generated
    used = fields_of_check() | set(re.findall(r"\blayer\.(\w+)", header("configure")))
    used |= set(re.findall(r"\blayer\.(\w+)", header("program_reader")))
    used -= {given.name for given in GIVEN}
    assert used | bounds == {f.name for f in layer_fields(ENGINE) if CHECKER in readers(f)}


def header(name: str) -> str:
    return (HEADERS / f"{name}.hpp").read_text(encoding="utf-8")


def fields_of_check() -> set[str]:
    return set(re.findall(r"\b(?:l|layer)\.(\w+)", header("layer_check")))


def test_check_finds_its_fields_in_the_early_words() -> None:
    """It takes the factors of its products before the rest of the descriptor is there."""
    early = {f.name for f in layer_fields(ENGINE) if f.word < EARLY_WORDS}
    _, _, take = header("layer_check").partition("void take(const Layer& l) {")
    taken = set(re.findall(r"\bl\.(\w+)", take))
    assert {"keep", "sub_rows", "blocks"} <= taken
    assert taken <= early


@pytest.mark.parametrize("struct", config_structs(ENGINE), ids=lambda struct: struct.name)
def test_process_uses_every_member_that_it_is_sent(struct: Struct) -> None:
    users = [chunk for chunk in chunks() if re.search(rf"\b{struct.name}&? c\b", chunk)]
    # a struct of the process' own that takes the record in its methods
    used = {name for chunk in users for name in re.findall(r"\bc\.(\w+)", chunk)}
    assert used == {member.name for member in struct.members}


@pytest.mark.parametrize("name", ENGINES)
def test_copies_are_those_of_the_fields(name: str) -> None:
    engine = ENGINES[name]
    found = {
        (each.process, copy.member, copy.field.name)
        for each in process_configs(engine)
        for copy in each.copies
        if copy.field
    }
    assert found == {
        (read.process, read.member, field.name)
        for field in layer_fields(engine)
        for read in field.reads
        if read.process != CHECKER
    }


def test_flags_reach_their_readers() -> None:
    found = {
        (each.process, copy.member, copy.flag.name)
        for each in process_configs(ENGINE)
        for copy in each.copies
        if copy.flag
    }
    assert found == {(r.process, r.member, flag.name) for flag in FLAGS for r in flag.reads}
    op = next(field for field in layer_fields(ENGINE) if field.name == "op")
    assert {read.process for flag in FLAGS for read in flag.reads} < set(readers(op))


def test_member_that_an_instance_reads_nothing_into_is_zero() -> None:
    """Both planners have one C++ function; writes skip rows, reads may be dense or gathered."""
    zero = {
        name: [c.member for c in config(name).copies if not (c.field or c.flag or c.given)]
        for name in ("plan_reads", "plan_shortcuts", "plan_writes")
    }
    assert zero == {
        "plan_reads": ["skip_last_row", "skip_last_column", "idle", "average"],
        "plan_shortcuts": ["dense", "skip_last_row", "skip_last_column", "gathers", "average"],
        "plan_writes": ["dense", "gathers", "idle"],
    }
    others = [each for each in process_configs(ENGINE) if each.process not in zero]
    assert all(copy.field or copy.flag or copy.given for each in others for copy in each.copies)


def test_records_hold_numbers_parts_and_arrays() -> None:
    structs = {struct.name: struct for struct in config_structs(EngineConfig(m=4))}
    assert list(structs) == list(dict.fromkeys(map(struct_name, PROCESSES)))
    assert structs["TransformOutputConfig"].members == (
        Member("op", "ap_uint<2>"),
        Member("sum_shift", "ap_uint<5>", 36),
    )
    plan = {member.name: member.type for member in structs["PlanRowsConfig"].members}
    assert plan["strips"] == "Strips"
    assert plan["rows"] == plan["words"] == "Places"
    assert plan["row_words"] == "Address"


def test_generated_code_fills_the_records(tmp_path: Path) -> None:
    emit_engine(tmp_path, ENGINE, TargetConfig())
    text = (tmp_path / "include" / "program.hpp").read_text(encoding="utf-8")
    for each in process_configs(ENGINE):
        body = text.split(f"inline {each.struct} {each.process}_config(", 1)[1].split("\n}", 1)[0]
        lines = re.findall(r"^ +c\.([\w.]+)(?:\[i\])? = (.*);$", body, re.MULTILINE)
        assert len(lines) == len(each.copies)
        for copy in each.copies:
            value = dict(lines)[copy.member]
            if copy.field:
                assert value == f"layer.{copy.field.name}" + "[i]" * copy.field.is_array
            elif copy.flag:
                sign = "==" if copy.flag.equal else "!="
                assert value == f"layer.op {sign} kOp{copy.flag.op.name.capitalize()}"
            elif copy.given:
                assert value == f"layer.{copy.given.name}"
            else:
                assert value == "0"


def test_process_lists_are_those_of_the_table(tmp_path: Path) -> None:
    """`configure` is written by hand; the top calls each process with its record and its port."""
    emit_engine(tmp_path, ENGINE, TargetConfig())
    names = [process.name for process in PROCESSES]
    text = (HEADERS / "configure.hpp").read_text(encoding="utf-8")
    assert re.findall(r"Stream<(\w+Config)>& (\w+)", text) == [
        (struct_name(process), process.name) for process in PROCESSES
    ]
    assert re.findall(r"^  (\w+)\.write\(\1_config\(layer\)\);$", text, re.MULTILINE) == names
    top = (tmp_path / "src" / "top.cpp").read_text(encoding="utf-8")
    for process in PROCESSES:
        assert f"\n  {process.function}({process.name}_config, " in top
    for port in PORTS:
        if port.process:
            assert re.search(rf"^  {port.process}\([\w, ]*\b{port.name}\b", top, re.MULTILINE)


# --- errors in the tables are found when the C++ is emitted --------------------------------------


def planted(monkeypatch: pytest.MonkeyPatch, *fields: Field) -> None:
    """Put fields behind those of the descriptor's table."""
    monkeypatch.setattr(configs, "layer_fields", lambda engine: (*layer_fields(engine), *fields))


def a_field(process: str, member: str) -> Field:
    return replace(layer_fields(ENGINE)[0], name="new", reads=(Read(process, member),))


def test_new_field_needs_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {each.process: len(each.copies) for each in process_configs(ENGINE)}
    planted(monkeypatch, a_field("finish", "new"))
    after = {each.process: len(each.copies) for each in process_configs(ENGINE)}
    assert after == before | {"finish": before["finish"] + 1}
    struct = next(each for each in config_structs(ENGINE) if each.name == "FinishConfig")
    assert struct.members[-1] == Member("new", "ap_uint<2>")


def test_field_read_by_no_process_is_our_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, a_field("finnish", "new"))
    with pytest.raises(AssertionError, match="new is read by finnish, which is no process"):
        process_configs(ENGINE)


def test_two_fields_in_one_member_are_our_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, replace(a_field("transform_output", "op")))
    with pytest.raises(AssertionError, match=r"transform_output\.op is read from two fields"):
        process_configs(ENGINE)


def test_one_member_of_two_types_is_our_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, a_field("plan_writes", "dense"))
    with pytest.raises(AssertionError, match=r"PlanRowsConfig\.dense is ap_uint<1> and ap_uint<2>"):
        config_structs(ENGINE)


def test_array_beyond_the_descriptor_is_our_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptor, "_ARRAYS", descriptor._ARRAYS * 4)
    with pytest.raises(AssertionError, match="the descriptor needs 60 words and a checksum"):
        layer_fields(EngineConfig(m=4))
