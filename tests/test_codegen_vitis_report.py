# SPDX-License-Identifier: Apache-2.0
"""Reading what Vitis HLS leaves behind, from reports in its format."""

from __future__ import annotations

from pathlib import Path

import pytest

from codegen.vitis_report import messages, read_synthesis, require_pipelined, table
from tests.vitis_reports import LOG, REPORTED, leave, report
from winnow.errors import ArtefactError, ToolError


def test_loops_clock_resources_and_messages_are_read(tmp_path: Path) -> None:
    leave(tmp_path, report({"each_step": 1, "each_slice": 8}))
    found = read_synthesis(tmp_path)
    assert [(x.module, x.name, x.ii, x.depth) for x in found.loops] == [
        ("each_step_process", "each_step", 1, "9"),
        ("each_slice_process", "each_slice", 8, "9"),
    ]
    assert (found.version, found.part) == ("2022.2", "xc7z020-clg400-1")
    assert (found.clock_ns, found.target_ns) == (6.21, 8.0)
    assert found.used == {"LUT": 52100, "FF": 41002, "DSP": 64, "BRAM_18K": 186, "URAM": 0}
    assert found.available["BRAM_18K"] == 280
    assert found.messages == REPORTED
    assert table(found) == (
        "Vitis HLS 2022.2, xc7z020-clg400-1\n"
        "loop                           II  depth\n"
        "each_step_process each_step     1      9\n"
        "each_slice_process each_slice   8      9  <- lost\n"
        "clock 6.21 ns, within 8 ns (estimated)\n"
        "LUT 52100 of 53200 (98%)\nFF 41002 of 106400 (39%)\nDSP 64 of 220 (29%)\n"
        "BRAM_18K 186 of 280 (66%)\nURAM 0\n" + "\n".join(REPORTED) + "\n"
    )


def test_older_reports_call_a_dsp_by_its_block(tmp_path: Path) -> None:
    leave(tmp_path, report({"each_step": 1}, clock="9.5", dsp="DSP48E"))
    found = read_synthesis(tmp_path)
    assert found.used["DSP"] == 64
    assert "clock 9.5 ns, above 8 ns (estimated)\n" in table(found)


def test_messages_are_those_that_cost_speed() -> None:
    assert messages(LOG) == REPORTED
    stalls = "WARNING: [HLS 200-9999] process 'f' may deadlock\n"
    assert messages(stalls) == ("[HLS 200-9999] process 'f' may deadlock",)
    assert messages("INFO: [HLS 200-885] The II Violation\n") == ()


def test_lost_loops_are_named(tmp_path: Path) -> None:
    leave(tmp_path, report({"a": 2, "b": 1, "c": 3, "d": 4, "e": 8}))
    with pytest.raises(ToolError) as caught:
        require_pipelined(read_synthesis(tmp_path), Path("hls/vitis.txt"))
    assert str(caught.value) == (
        "Vitis HLS lost II 1: a of a_process has II 2, c of c_process has II 3, d of d_process has "
        "II 4 and 1 more; see 'hls/vitis.txt'"
    )
    leave(tmp_path, report({}))
    with pytest.raises(ToolError, match=r"^Vitis HLS pipelined no loop; see 'x'$"):
        require_pipelined(read_synthesis(tmp_path), Path("x"))
    leave(tmp_path, report({"a": 1}))
    require_pipelined(read_synthesis(tmp_path), Path("x"))


def test_a_range_is_as_slow_as_its_end(tmp_path: Path) -> None:
    text = report({"each_step": 1}).replace(">1</PipelineII>", "> 1 ~ 4 </PipelineII>")
    leave(tmp_path, text)
    assert [loop.ii for loop in read_synthesis(tmp_path).lost] == [4]


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"^Vitis HLS wrote no '.*csynth\.xml'; see '.*\.log'$"):
        read_synthesis(tmp_path)
    for text, reason in (
        ("<profile>", "no element found"),
        ("<profile/>", "no UserAssignments/TopModelName"),
        (report({}, clock="undef"), "could not convert string to float: 'undef'"),
        (report({}).replace("AreaEstimates", "Area"), "no AreaEstimates/Resources"),
    ):
        leave(tmp_path, text)
        with pytest.raises(ArtefactError, match=f"csynth.xml' is no csynth report: {reason}"):
            read_synthesis(tmp_path)
