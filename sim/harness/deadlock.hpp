// SPDX-License-Identifier: Apache-2.0
// Prints the wires of a design that stands still, for openhls/deadlock.py, which says who waits for
// whom: a line "handshake NAME HEX" each for valid, ready, one, all and ports. No clock edge
// happens; `eval` lets the combinational logic settle.
#pragma once

#include <verilated.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>

namespace sim {

template <std::size_t WORDS>
void print_wires(const char* name, const VlWide<WORDS>& wires) {
  std::printf("handshake %s ", name);
  for (std::size_t i = WORDS; i-- > 0;) std::printf("%08x", unsigned(wires[i]));
  std::printf("\n");
}

template <std::size_t WORDS, class Eval>
void print_handshakes(const VlWide<WORDS>& valid, const VlWide<WORDS>& ready,
                      const VlWide<WORDS>& ports, VlWide<WORDS>& probe, CData& probe_sends,
                      Eval eval) {
  print_wires("valid", valid);
  print_wires("ready", ready);
  print_wires("ports", ports);
  const VlWide<WORDS> before = valid;
  VlWide<WORDS> one, none;
  for (std::size_t i = 0; i < WORDS; i++) one[i] = none[i] = 0;
  probe_sends = 1;
  for (std::size_t i = 0; i < 32 * WORDS; i++) {
    const EData bit = EData(1) << (i % 32);
    if (before[i / 32] & bit) continue;
    probe = none;
    probe[i / 32] = bit;
    eval();
    one[i / 32] |= ready[i / 32] & bit;
  }
  for (std::size_t i = 0; i < WORDS; i++) probe[i] = ~EData(0);
  eval();
  print_wires("one", one);
  print_wires("all", ready);
}

}  // namespace sim

// For the Verilated model of the module TOP; needs "VTOP___024root.h".
#define PRINT_HANDSHAKES(model, TOP)                                                      \
  sim::print_handshakes(                                                                  \
      (model).rootp->TOP##__DOT__openhls_valid, (model).rootp->TOP##__DOT__openhls_ready, \
      (model).rootp->TOP##__DOT__openhls_ports, (model).rootp->TOP##__DOT__openhls_probe, \
      (model).rootp->TOP##__DOT__openhls_probe_sends, [&] { (model).eval(); })
