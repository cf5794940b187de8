// SPDX-License-Identifier: Apache-2.0
// Clocks `waved` and writes its waveforms to the file that the argument names.
#include <cstdint>

#include "Vwaved.h"
#include "verilated_fst_c.h"

int main(int, char** arguments) {
  VerilatedContext context;
  context.traceEverOn(true);
  Vwaved top(&context);
  VerilatedFstC trace;
  top.trace(&trace, 99);
  trace.open(arguments[1]);
  std::uint32_t draw = 1;
  for (int cycle = 0; cycle < 3000; cycle++) {
    top.rst = cycle < 2;
    for (int i = 0; i < 3; i++) {
      draw = draw * 1664525u + 1013904223u;
      top.noise[i] = cycle % 100 < 90 ? 0 : draw >> 8 & (i == 2 ? 0x3f : 0xffffff);
    }
    for (int level : {0, 1}) {
      top.clk = level;
      top.eval();
      trace.dump(2 * cycle + level);
    }
  }
  trace.close();
}
