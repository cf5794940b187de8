# SPDX-License-Identifier: Apache-2.0
"""Longest paths over module boundaries, on arcs made by hand."""

from __future__ import annotations

import pytest

from openhls.errors import HlsError
from openhls.inter_module import longest_inter_module_path
from openhls.timing import CLOCK_TO_Q, NET, SETUP, Arcs, TimingPath


def arcs(**paths: float) -> Arcs:
    """Return arcs by `start__end`; `_` for a dot, a missing name is state."""
    found: Arcs = {}
    for name, ns in paths.items():
        start, end = name.replace("_x_", "_x.").split("__")
        found[start.replace("_", "."), end.replace("_", ".")] = TimingPath(ns, 1, 0)
    return found


SOURCE = arcs(__q=2.0, __=4.0)
THROUGH = arcs(d__q=1.5, d__=1.0, __q=0.5)
SINK = arcs(d__=3.0)
CHILDREN = {
    "\\top": {"\\a": "\\source", "\\b": "\\through", "\\c": "\\sink"},
    "\\source": {},
    "\\through": {},
    "\\sink": {},
}
MODULES = {"\\source": SOURCE, "\\through": THROUGH, "\\sink": SINK}


def test_path_goes_through_a_module_to_the_state_of_another() -> None:
    top = {"\\top": arcs(a_q__b_d=0.0, b_q__c_d=0.25)}
    found = longest_inter_module_path(MODULES | top, CHILDREN, "\\top")
    assert found.ns == pytest.approx(2.0 + 1.5 + 0.25 + 3.0)
    assert (found.levels, found.chains) == (5, 0)
    assert found.pins == ("a", "a.q", "b.d", "b.q", "c.d")


def test_path_inside_of_a_module_counts() -> None:
    top = {"\\top": arcs(a_q__b_d=0.0)}
    found = longest_inter_module_path(MODULES | top, CHILDREN, "\\top")
    assert (found.ns, found.pins) == (4.0, ("a",))


def test_modules_in_modules_are_entered() -> None:
    children = {
        "\\whole": {"\\x": "\\top"},
        **CHILDREN,
    }
    modules = MODULES | {
        "\\top": {**arcs(a_q__out=1.0, b_q__c_d=0.0), **arcs(go__b_d=0.5)},
        "\\whole": {("x.out", "x.go"): TimingPath(0.0, 0, 0)},
    }
    found = longest_inter_module_path(modules, children, "\\whole")
    assert found.ns == pytest.approx(2.0 + 1.0 + 0.5 + 1.5 + 3.0)
    assert found.pins == ("x.a", "x.a.q", "x.out", "x.go", "x.b.d", "x.b.q", "x.c.d")


def test_ports_of_the_top_are_flip_flops() -> None:
    top = {"\\top": arcs(go__out=9.0)}
    found = longest_inter_module_path(MODULES | top, CHILDREN, "\\top")
    assert found.ns == pytest.approx(CLOCK_TO_Q["FD"] + 9.0 + SETUP["FD"] + NET)
    assert found.pins == ("go", "out")


def test_loop_over_module_boundaries_is_named() -> None:
    top = {"\\top": arcs(b_q__b_d=0.0)}
    with pytest.raises(HlsError, match=r"^combinational loop over module boundaries, at 'b\."):
        longest_inter_module_path(MODULES | top, CHILDREN, "\\top")
