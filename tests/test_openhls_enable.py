# SPDX-License-Identifier: Apache-2.0
"""Enables ask only for ports that matter: on text as XLS writes it."""

from __future__ import annotations

import re

import pytest

from openhls.enable import drop_done_registers, narrow_enables

MODULE = """module m(
  input wire a_vld,
  input wire b_rdy,
  input wire [7:0] c_data,
  output wire a_rdy
);
  reg [1:0] __s_state;
  reg __s_last;
  wire [1:0] n1;
  wire [1:0] n2;
  assign n1 = 2'h1;
  assign n2 = 2'h2;
  assign at_1 = __s_state == n1;
  assign at_2 = __s_state == n2;
  assign big = c_data > 8'h07;
  assign ends = at_1 & __s_last;
  assign goes = ~(~at_1 | __s_last);
  assign either = ends | at_2;
  assign not_1 = ~at_1;
  assign not_2 = ~either;
  assign not_3 = ~big;
  assign or_1 = a_vld | not_1;
  assign or_2 = b_rdy | __b_already_done_reg | not_2;
  assign or_3 = b_rdy | not_3;
  assign moves = or_1 & or_2 & or_3;
  assign and_1 = moves & {condition};
  assign a_rdy = and_1;
  always_ff @ (posedge clk) x <= and_1 ? y : x;
endmodule
"""


def enable(condition: str) -> str:
    text = narrow_enables(MODULE.replace("{condition}", condition))
    found = re.search(r"assign and_1 = (.*);", text)
    assert found is not None
    return found.group(1)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        # b is not used in this case of step 1
        ("goes", "or_1 & or_3 & goes"),
        # b is always used in step 2, and a is not
        ("at_2", "(b_rdy | __b_already_done_reg) & or_3 & at_2"),
        # both are always used when step 1 ends
        ("ends", "(a_vld) & (b_rdy | __b_already_done_reg) & or_3 & at_1 & __s_last"),
        # of what makes step 1 end only one factor is open
        ("at_1", "(a_vld) & (b_rdy | __b_already_done_reg | ~(__s_last)) & or_3 & at_1"),
        # one that does not tell the steps apart
        (
            "__s_last",
            "or_1 & (b_rdy | __b_already_done_reg | ~(at_1 | at_2)) & or_3 & __s_last",
        ),
        # what is compared otherwise is one unknown value
        ("big", "or_1 & or_2 & (b_rdy) & big"),
    ],
)
def test_enable_has_the_waits_of_its_own_case(condition: str, expected: str) -> None:
    assert enable(condition) == expected


def test_wait_stays_where_a_search_is_too_long() -> None:
    names = [f"__s_{i}" for i in range(40)]
    wires = "".join(f"  assign odd_{i} = ~(~{x} | odd_{i + 1});\n" for i, x in enumerate(names))
    text = MODULE.replace("  assign at_1", f"{wires}  assign at_1", 1)
    hard = " & ".join(f"odd_{i}" for i in range(0, 40, 2))
    kept = narrow_enables(text.replace("{condition}", hard))
    assert f"assign and_1 = moves & {hard};" in kept


SEND = """module m(
  input wire a_vld,
  input wire b_rdy,
  input wire c_rdy,
  output wire b_vld
);
  reg __b_already_done_reg;
  wire moves;
  assign wanted = a_vld & x;
  assign not_1 = ~wanted;
  assign or_1 = b_rdy | __b_already_done_reg | not_1;
  assign moves = a_vld & or_1{other};
  assign not_2 = ~__b_already_done_reg;
  assign sends = wanted & not_2;
  assign leaves = sends & b_rdy;
  assign finished = moves & x;
  assign not_3 = ~finished;
  assign early = leaves & not_3;
  assign changes = leaves | finished;
  always_ff @ (posedge clk) begin
    if (rst) begin
      __b_already_done_reg <= 1'h0;
    end else begin
      __b_already_done_reg <= changes ? early : __b_already_done_reg;
    end
  end
  assign b_vld = sends;
endmodule
"""


def test_a_word_that_leaves_with_its_stage_leaves_no_note() -> None:
    text = drop_done_registers(SEND.replace("{other}", ""))
    assert "  wire __b_already_done_reg = 1'h0;\n" in text
    assert "already_done_reg <=" not in text


def test_a_word_that_may_leave_before_its_stage_leaves_a_note() -> None:
    """Another port of the stage waits: without the note the word would be sent twice."""
    text = SEND.replace("{other}", " & c_rdy")
    assert drop_done_registers(text) == text
