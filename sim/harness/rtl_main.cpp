// SPDX-License-Identifier: Apache-2.0
// Runs the RTL of the engine on a batch of images, driven only through its AXI pins. The same
// command line and output as hls_templates/host/csim_main.cpp, plus stalls:
//
//   rtlsim PROGRAM WEIGHTS IMAGES OUTPUT FEATURE_WORDS INPUT_BASE INPUT_WORDS STALL% SEED WATCHDOG
//
// Prints for every image "status CODE LAYERS", "axi_error BITS", "cycles N" (start to done) and
// "layers C0 C1 ..." (cycles from the fetch of one descriptor to the next). Exit code 0 when all
// ran, 2 when the engine reported an error, 3 on a protocol violation, 4 on a hang: no AXI beat for
// WATCHDOG cycles. A hang also prints the lines of waits.hpp, if the RTL has these wires.
#include <verilated.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "Vwinnow_engine.h"
#include "axi_lite.hpp"
#include "axi_memory.hpp"
#ifdef WINNOW_WAITS
#include "Vwinnow_engine___024root.h"
#include "waits.hpp"
#endif

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint64_t kProgram = 0x10000000, kWeights = 0x20000000, kFeatures = 0x40000000;
constexpr unsigned kLatency = WINNOW_LATENCY;
constexpr unsigned kControl = 0x00, kStart = 1, kDone = 2;
constexpr unsigned kStatusOffset = 0x40, kAxiErrorOffset = WINNOW_AXI_ERROR_OFFSET;
constexpr unsigned kPointerOffsets[] = {0x10, 0x1c, 0x28, 0x34};
constexpr unsigned kHeaderBytes = 64;

Bytes read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "error: cannot read %s\n", path);
    std::exit(1);
  }
  return Bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

using WordPins = sim::ReadPins<QData, 8>;
using BeatData = std::remove_reference_t<decltype(Vwinnow_engine::m_axi_gmem1_RDATA)>;
using BeatPins = sim::ReadPins<BeatData, WINNOW_AXI_BYTES>;

class Bench {
 public:
  Bench(sim::Memory& memory, int stall, unsigned seed, unsigned long long watchdog)
      : watchdog(watchdog),
        program("gmem0", READ_PINS(top, gmem0), memory, stall, seed, kLatency),
        weights("gmem1", READ_PINS(top, gmem1), memory, stall, seed + 1, kLatency),
        features("gmem2", READ_PINS(top, gmem2), memory, stall, seed + 2, kLatency),
        results("gmem3", WRITE_PINS(top, gmem3), memory, stall, seed + 3, kLatency) {}

  void reset() {
    top.ap_rst_n = 0;
    for (int i = 0; i < 8; i++) tick();
    top.ap_rst_n = 1;
    for (int i = 0; i < 8; i++) tick();
  }

  void tick() {
    top.ap_clk = 0;
    program.drive(cycle);
    weights.drive(cycle);
    features.drive(cycle);
    results.drive(cycle);
    top.eval();
    program.sample(cycle);
    weights.sample(cycle);
    features.sample(cycle);
    results.sample(cycle);
    top.ap_clk = 1;
    top.eval();
    cycle++;
  }

  void write(unsigned offset, std::uint32_t value) { sim::write_register(*this, offset, value); }
  std::uint32_t read(unsigned offset) { return sim::read_register(*this, offset); }

  std::uint64_t beats() const {
    return program.beats() + weights.beats() + features.beats() + results.beats();
  }

  // Run once; returns the cycles from the start to the done bit.
  unsigned long long run() {
    write(kControl, kStart);
    const unsigned long long started = cycle;
    std::uint64_t beats_before = 0;
    unsigned long long last_beat = cycle;
    while (!top.__SYM__interrupt) {  // Verilator's name for a pin called like a C++ word
      tick();
      if (beats() != beats_before) {
        beats_before = beats();
        last_beat = cycle;
      } else if (cycle - last_beat > watchdog) {
        stop_hanging();
      }
    }
    return cycle - started;
  }

  [[noreturn]] void stop_hanging() {
#ifdef WINNOW_WAITS
    PRINT_WAITS(top, winnow_engine);
    std::fflush(stdout);
#endif
    std::fprintf(stderr, "error: no AXI beat for %llu cycles\n", watchdog);
    std::exit(4);
  }

  Vwinnow_engine top;
  const unsigned long long watchdog;
  sim::ReadSlave<WordPins> program;
  sim::ReadSlave<BeatPins> weights;
  sim::ReadSlave<WordPins> features;
  sim::WriteSlave<sim::WritePins> results;
  unsigned long long cycle = 0;
};

// Cycles between the fetches of consecutive descriptors, the last until the end.
void print_layers(const std::vector<sim::ReadSlave<WordPins>::Request>& requests,
                  unsigned long long end, unsigned layer_bytes) {
  std::vector<unsigned long long> starts;
  for (const auto& request : requests) {
    std::uint64_t offset = request.address - kProgram;
    if (offset >= kHeaderBytes && (offset - kHeaderBytes) % layer_bytes == 0) {
      starts.push_back(request.cycle);
    }
  }
  std::printf("layers");
  for (std::size_t i = 0; i < starts.size(); i++) {
    std::printf(" %llu", (i + 1 < starts.size() ? starts[i + 1] : end) - starts[i]);
  }
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 11) {
    std::fprintf(stderr,
                 "usage: rtlsim PROGRAM WEIGHTS IMAGES OUTPUT FEATURE_WORDS INPUT_BASE INPUT_WORDS "
                 "STALL%% SEED WATCHDOG\n");
    return 1;
  }
  const Bytes images = read_file(argv[3]);
  std::ofstream output(argv[4], std::ios::binary);
  const std::size_t feature_bytes = std::stoull(argv[5]) * 8;
  const std::size_t input_base = std::stoull(argv[6]) * 8, input_bytes = std::stoull(argv[7]) * 8;
  sim::Memory memory;
  memory.add(kProgram, read_file(argv[1]));
  memory.add(kWeights, read_file(argv[2]));
  memory.add(kFeatures, Bytes(feature_bytes));
  auto bench = std::make_unique<Bench>(memory, std::stoi(argv[8]), unsigned(std::stoul(argv[9])),
                                       std::stoull(argv[10]));
  bench->reset();
  const std::uint64_t pointers[] = {kProgram, kWeights, kFeatures, kFeatures};
  for (int i = 0; i < 4; i++) {
    bench->write(kPointerOffsets[i], std::uint32_t(pointers[i]));
    bench->write(kPointerOffsets[i] + 4, std::uint32_t(pointers[i] >> 32));
  }
  bench->write(0x04, 1);  // global interrupt enable
  bench->write(0x08, 1);  // on done
  int failures = 0;
  for (std::size_t image = 0; image < images.size() / input_bytes; image++) {
    Bytes& bytes = memory.region(2).bytes;
    for (std::size_t i = 0; i < bytes.size(); i++) bytes[i] = std::uint8_t(0x5A ^ (i * 37));
    std::copy_n(images.begin() + image * input_bytes, input_bytes, bytes.begin() + input_base);
    bench->program.take_requests();
    const unsigned long long cycles = bench->run();
    const unsigned long long end = bench->cycle;
    if ((bench->read(kControl) & kDone) == 0) sim::violation("s_axi_control", "done bit not set");
    bench->write(0x0C, 1);  // acknowledge the interrupt
    const std::uint32_t status = bench->read(kStatusOffset);
    const std::uint32_t axi_error = bench->read(kAxiErrorOffset);
    std::printf("status %u %u\naxi_error %u\ncycles %llu\n", status & 0xFF, (status >> 8) & 0xFFFF,
                axi_error, cycles);
    print_layers(bench->program.take_requests(), end, WINNOW_LAYER_BYTES);
    if ((status & 0xFF) != 0 || axi_error != 0) failures++;
    output.write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
  }
  output.flush();
  if (!output) {
    std::fprintf(stderr, "error: cannot write %s\n", argv[4]);
    return 1;
  }
  return failures ? 2 : 0;
}
