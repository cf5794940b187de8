# SPDX-License-Identifier: Apache-2.0
"""Who waits for whom in a design under cocotb that stands still; see openhls/deadlock.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cocotb.triggers import Timer

from openhls.deadlock import Snapshot, WaitForGraph, explain


async def explain_hang(dut: Any, clock: Any, waits: Path) -> str:
    """Stop the clock, look at the wires and return a sentence; `waits` is wait_for_graph.json."""
    clock.stop()
    found = WaitForGraph.load(waits)
    return explain(found, await _take_snapshot(dut, len(found.ends)))


async def _take_snapshot(dut: Any, num_ends: int) -> Snapshot:
    async def ready(probe: int) -> int:
        dut.openhls_probe.value = probe
        await Timer(1, "step")
        return int(dut.openhls_ready.value)

    valid, before, ports = (
        int(wires.value) for wires in (dut.openhls_valid, dut.openhls_ready, dut.openhls_ports)
    )
    dut.openhls_probe_sends.value = 1
    one = 0
    for bit in range(num_ends):
        if not valid >> bit & 1:
            one |= await ready(1 << bit) & 1 << bit
    together = await ready((1 << num_ends) - 1)
    dut.openhls_probe_sends.value = 0
    await ready(0)
    return Snapshot(valid, before, one, together, ports)
