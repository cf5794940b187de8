// SPDX-License-Identifier: Apache-2.0
// Runs the design of tests/kernels/shallow.cpp:
//
//   shallow COUNT LATENCY
//
// Prints "done CYCLES" and the words of `results`, or after kPatience cycles the lines of
// deadlock.hpp.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "Vshallow.h"
#include "Vshallow___024root.h"
#include "axi_lite.hpp"
#include "axi_memory.hpp"
#include "deadlock.hpp"

namespace {

constexpr int kPatience = 3000;

struct Bench {
  Bench(sim::Memory& memory, unsigned latency)
      : source("gmem0", READ_PINS(top, gmem0), memory, 0, 0, latency),
        results("gmem1", WRITE_PINS(top, gmem1), memory, 0, 0, 4) {}
  void tick() {
    top.ap_clk = 0;
    source.drive(cycle);
    results.drive(cycle);
    top.eval();
    source.sample(cycle);
    results.sample(cycle);
    top.ap_clk = 1;
    top.eval();
    cycle++;
  }

  Vshallow top;
  sim::ReadSlave<sim::ReadPins<QData, 8>> source;
  sim::WriteSlave<sim::WritePins> results;
  unsigned long long cycle = 0;
};

}  // namespace

int main(int, char** argv) {
  const unsigned count = unsigned(std::atoi(argv[1]));
  sim::Memory memory;
  memory.add(0, std::vector<std::uint8_t>(8 * 256));
  memory.region(0).bytes[0] = std::uint8_t(count);
  auto bench = std::make_unique<Bench>(memory, unsigned(std::strtoul(argv[2], nullptr, 0)));
  bench->top.ap_rst_n = 0;
  for (int i = 0; i < 8; i++) bench->tick();
  bench->top.ap_rst_n = 1;
  for (int i = 0; i < 8; i++) bench->tick();
  if (count != 0) sim::write_register(*bench, 0x00, 1);
  for (int i = 0; i < kPatience; i++) {
    bench->tick();
    if (count != 0 && (sim::read_register(*bench, 0x00) & 2) != 0) {
      std::printf("done %llu\n", bench->cycle);
      for (unsigned k = 1; k <= count; k++) std::printf("%u\n", memory.region(0).bytes[8 * k + 1]);
      return 0;
    }
  }
  PRINT_HANDSHAKES(bench->top, shallow);
  return 0;
}
