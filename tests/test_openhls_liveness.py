# SPDX-License-Identifier: Apache-2.0
"""States that nobody reads any more are updated as if their loop went on."""

from __future__ import annotations

from pathlib import Path

from openhls.accesses import ProcessOptions
from openhls.compile import make_plan
from openhls.expression_graph import ExpressionGraph
from openhls.frontend import compile_unit, preprocess
from openhls.liveness import update_dead_states
from openhls.machine import Machine, State
from openhls.ranges import FSM

ADD = """#include <ap_int.h>
#include <hls_stream.h>
typedef hls::stream<ap_uint<8> > Words;
void add(Words& in, Words& out) {
  ap_uint<8> first = in.read(), sum = first, count = 0, x;
  do {
#pragma HLS pipeline II = 1
    x = in.read();
    sum += x;
    count++;
  } while (x != 0);
  out.write(%s);
}
"""


def dead_states(folder: Path, result: str) -> set[str]:
    source = folder / "add.cpp"
    source.write_text(ADD % result)
    unit = compile_unit(preprocess(source, []), "add")
    plan, _ = make_plan(unit.module, unit.module.functions[unit.top], ProcessOptions())
    return {name.split(".")[0].lstrip("%") for name in plan.machine.dead}


def test_variable_of_a_loop_dies_with_it(tmp_path: Path) -> None:
    assert dead_states(tmp_path, "sum") >= {"sum"}  # what is sent is sent in the last iteration


def machine(*, read_later: bool) -> tuple[Machine, list[int]]:
    """Step 0 sets x; step 1 updates it until `last`; step 2 reads it, or not."""
    graph = ExpressionGraph()
    made = Machine(graph, {FSM: State(2), "x": State(8), "y": State(8), "last": State(1)})
    state, x = graph.state(FSM, 2), graph.state("x", 8)
    steps = [graph.compare("eq", state, graph.literal(2, number)) for number in range(3)]
    last = graph.state("last", 1)
    goes, ends = graph.and_(steps[1], graph.not_(last)), graph.and_(steps[1], last)
    made.nexts["x"] = [(steps[0], graph.literal(8, 0)), (goes, graph.add("add", x, x))]
    made.nexts["y"] = [(steps[2], x if read_later else graph.literal(8, 1))]
    for condition, number in ((steps[0], 1), (goes, 1), (ends, 2), (steps[2], 0)):
        made.nexts[FSM].append((condition, graph.literal(2, number)))
    return made, steps


def test_state_that_a_later_step_reads_stays() -> None:
    made, steps = machine(read_later=True)
    update_dead_states(made, steps)
    assert steps[1] not in made.dead["x"]


def test_state_that_is_set_again_before_it_is_read_may_change() -> None:
    made, steps = machine(read_later=False)
    update_dead_states(made, steps)
    assert steps[1] in made.dead["x"]


def test_value_that_is_undefined_on_an_edge_is_not_kept_for_it() -> None:
    """As one that is set there: `x` is not, but no C++ may rely on what it was."""
    made, steps = machine(read_later=False)
    made.nexts["x"] = made.nexts["x"][1:]
    update_dead_states(made, steps)
    assert not made.dead["x"]
    made.undefined["x"] = [steps[0]]
    update_dead_states(made, steps)
    assert steps[1] in made.dead["x"]
