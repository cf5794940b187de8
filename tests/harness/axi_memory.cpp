// SPDX-License-Identifier: Apache-2.0
// Breaks one rule of AXI in front of the memory models of sim/harness/axi_memory.hpp:
//
//   axi_memory CASE
//
// Ends with code 3 and the rule's name when the model has seen it, with code 0 when it has not.
#include "axi_memory.hpp"

#include <cstdio>
#include <functional>
#include <map>
#include <string>

namespace {

using ReadPins = sim::ReadPins<QData, 8>;

// Pins that belong to no design; a legal burst of two words is on AR and AW.
struct Pins {
  CData valid = 0, ready = 0, length = 1, size = 3, burst = 1;
  QData address = 0x1000;
  CData data_valid = 0, data_ready = 0, resp = 0, last = 0, strobe = 0xff;
  QData data = 0x0123456789abcdef;
  CData b_valid = 0, b_ready = 1, b_resp = 0;

  sim::AddressPins request() { return {&valid, &ready, &address, &length, &size, &burst}; }
  ReadPins read() { return {request(), &data_valid, &data_ready, &data, &resp, &last}; }
  sim::WritePins write() {
    return {request(), &data_valid, &data_ready, &data,  &strobe,
            &last,     &b_valid,    &b_ready,    &b_resp};
  }
};

// One master that reads and one that writes, both wired to the same kind of pins.
struct Bench {
  explicit Bench(int stall)
      : reader("reads", read.read(), memory, stall, 1, 2),
        writer("writes", write.write(), memory, stall, 2, 2) {
    memory.add(0x1000, std::vector<std::uint8_t>(0x2000));
  }
  void tick() {
    reader.drive(cycle);
    writer.drive(cycle);
    reader.sample(cycle);
    writer.sample(cycle);
    cycle++;
  }

  Pins read, write;
  sim::Memory memory;
  sim::ReadSlave<ReadPins> reader;
  sim::WriteSlave<sim::WritePins> writer;
  unsigned long long cycle = 0;
};

// A request that one member of the pins makes illegal.
template <class Member, class Value>
std::function<void(Bench&)> request(Pins Bench::* side, Member member, Value value) {
  return [=](Bench& bench) {
    (bench.*side).*member = value;
    (bench.*side).valid = 1;
    bench.tick();
  };
}

// A request that waits for READY and then changes.
template <class Member, class Value>
std::function<void(Bench&)> change(Member member, Value value) {
  return [=](Bench& bench) {
    bench.read.valid = 1;
    bench.tick();
    bench.read.*member = value;
    bench.tick();
  };
}

void write_beats(Bench& bench, unsigned beats, unsigned last) {
  bench.write.valid = bench.write.data_valid = 1;
  bench.tick();  // the address
  bench.write.valid = 0;
  for (unsigned beat = 0; beat < beats; beat++) {
    bench.write.last = beat == last;
    bench.tick();
  }
}

const std::map<std::string, std::function<void(Bench&)>> kCases = {
    {"legal", [](Bench& bench) { write_beats(bench, 2, 1); }},
    {"size", request(&Bench::read, &Pins::size, CData(2))},
    {"burst", request(&Bench::write, &Pins::burst, CData(0))},
    {"aligned", request(&Bench::read, &Pins::address, QData(0x1004))},
    {"page", request(&Bench::write, &Pins::address, QData(0x1ff8))},
    {"early last", [](Bench& bench) { write_beats(bench, 2, 0); }},
    {"late last", [](Bench& bench) { write_beats(bench, 2, 2); }},
};

const std::map<std::string, std::function<void(Bench&)>> kStalledCases = {
    {"withdrawn", change(&Pins::valid, CData(0))},
    {"other address", change(&Pins::address, QData(0x1008))},
    {"other length", change(&Pins::length, CData(0))},
    {"held", change(&Pins::valid, CData(1))},
};

}  // namespace

int main(int, char** argv) {
  const std::string name = argv[1];
  const bool stalled = kStalledCases.count(name) != 0;
  Bench bench(stalled ? 100 : 0);
  (stalled ? kStalledCases : kCases).at(name)(bench);
  return 0;
}
