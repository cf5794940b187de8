// SPDX-License-Identifier: Apache-2.0
// The Verilated engine with a memory behind its masters: its pins, its clock, its registers. Every
// master sees the same memory, WINNOW_LATENCY cycles away, with random stalls if asked for.
#pragma once

#include <verilated.h>

#include <cstdint>
#include <type_traits>

#include "Vwinnow_engine.h"
#include "abi.hpp"
#include "axi_lite.hpp"
#include "axi_memory.hpp"

namespace sim {

template <class Data, unsigned BITS>
using PortReader = ReadSlave<ReadPins<std::remove_reference_t<Data>, BITS / 8>>;
using PortWriter = WriteSlave<WritePins>;

// What is done with every port: see WINNOW_PORTS in abi.hpp.
#define READER(index, name, master, bits, region, offset)                  \
  PortReader<decltype(Vwinnow_engine::m_axi_##master##_RDATA), bits> name{ \
      #master, READ_PINS(top, master), memory, stall, seed + index, WINNOW_LATENCY};
#define WRITER(index, name, master, bits, region, offset)           \
  static_assert(bits == 64, "the harness writes words of 8 bytes"); \
  PortWriter name{#master, WRITE_PINS(top, master), memory, stall, seed + index, WINNOW_LATENCY};
#define DRIVE(index, name, ...) name.drive(cycle);
#define SAMPLE(index, name, ...) name.sample(cycle);
#define COUNT_BEATS(index, name, ...) +name.beats()

class Engine {
 public:
  Engine(Memory& memory, int stall, unsigned seed) : memory(memory), stall(stall), seed(seed) {}

  void reset() {
    top.ap_rst_n = 0;
    for (int i = 0; i < 8; i++) tick();
    top.ap_rst_n = 1;
    for (int i = 0; i < 8; i++) tick();
  }

  void tick() {
    top.ap_clk = 0;
    WINNOW_PORTS(DRIVE, DRIVE)
    top.eval();
    WINNOW_PORTS(SAMPLE, SAMPLE)
    top.ap_clk = 1;
    top.eval();
    cycle++;
  }

  void write(unsigned offset, std::uint32_t value) { write_register(*this, offset, value); }
  std::uint32_t read(unsigned offset) { return read_register(*this, offset); }
  std::uint64_t beats() const { return WINNOW_PORTS(COUNT_BEATS, COUNT_BEATS); }

  Vwinnow_engine top;
  Memory& memory;
  const int stall;
  const unsigned seed;
  WINNOW_PORTS(READER, WRITER)
  unsigned long long cycle = 0;
};

#undef READER
#undef WRITER
#undef DRIVE
#undef SAMPLE
#undef COUNT_BEATS

}  // namespace sim
