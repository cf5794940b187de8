// SPDX-License-Identifier: Apache-2.0
// Starts the RTL of the engine on one input after the other, through its AXI pins only. The same
// command line and output as hls_templates/host/csim_main.cpp, plus stalls:
//
//   rtlsim PROGRAM WEIGHTS IMAGES OUTPUT FEATURE_WORDS INPUT_BASE INPUT_WORDS STALL% SEED WATCHDOG
//          [ENGINE_WATCHDOG]
//   rtlsim SOCKET     the engine as a device on a bus, see device.hpp
//
// Prints for every start "status CODE LAYERS IMAGES", "axi_error BITS", "ended_by BITS",
// "counted N" (register `cycles`), "cycles N" (start to done) and "layers C0 C1 ..." (cycles from
// the fetch of one descriptor to the next, image after image). Exit code 0 when all ran, 2 when the
// engine reported an error, 3 on a protocol violation, 4 on a hang: no AXI beat for WATCHDOG
// cycles; ENGINE_WATCHDOG is what the engine's own register gets. A hang also prints the lines of
// deadlock.hpp, if the RTL has these wires.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "abi.hpp"
#include "axi_memory.hpp"
#include "device.hpp"
#include "engine.hpp"
#ifdef WINNOW_WAITS
#include "Vwinnow_engine___024root.h"
#include "deadlock.hpp"
#endif

namespace {

using Bytes = std::vector<std::uint8_t>;

// Where the memories lie, by the names of WINNOW_PORTS.
namespace base {
constexpr std::uint64_t program = 0x10000000, weights = 0x20000000, features = 0x40000000;
}

Bytes read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "error: cannot read %s\n", path);
    std::exit(1);
  }
  return Bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

// What the bench does with every port: see WINNOW_PORTS in abi.hpp.
#define POINT(index, name, master, bits, region, offset) write_address(offset, base::region);

class Bench : public sim::Engine {
 public:
  Bench(sim::Memory& memory, int stall, unsigned seed, unsigned long long watchdog)
      : Engine(memory, stall, seed), watchdog(watchdog) {}

  void write_address(unsigned offset, std::uint64_t address) {
    write(offset, std::uint32_t(address));
    write(offset + 4, std::uint32_t(address >> 32));
  }
  void write_addresses() {  // of all ports
    WINNOW_PORTS(POINT, POINT)
  }

  // What the engine may access of each memory: all of it.
  void write_limits(std::size_t program_bytes, std::size_t weight_bytes,
                    std::size_t feature_bytes) {
    write(winnow::kProgramWordsOffset, std::uint32_t(program_bytes * 8 / winnow::kProgramBits));
    write(winnow::kWeightBeatsOffset, std::uint32_t(weight_bytes * 8 / winnow::kWeightsBits));
    write(winnow::kFeatureWordsOffset, std::uint32_t(feature_bytes * 8 / winnow::kFeaturesBits));
  }

  // Run once; returns the cycles from the start to the done bit.
  unsigned long long run() {
    write(winnow::kControlOffset, winnow::kControlStart);
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
    PRINT_HANDSHAKES(top, winnow_engine);
    std::fflush(stdout);
#endif
    std::fprintf(stderr, "error: no AXI beat for %llu cycles\n", watchdog);
    std::exit(4);
  }

  const unsigned long long watchdog;
};

// Cycles between the fetches of consecutive descriptors, the last until the end.
template <class Request>
void print_layers(const std::vector<Request>& requests, unsigned long long end) {
  constexpr unsigned kHeaderBytes = 8 * winnow::kHeaderWords, kLayerBytes = 8 * winnow::kLayerWords;
  std::vector<unsigned long long> starts;
  for (const auto& request : requests) {
    std::uint64_t offset = request.address - base::program;
    if (offset >= kHeaderBytes && (offset - kHeaderBytes) % kLayerBytes == 0) {
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
  if (argc == 2) {
    sim::Device(argv[1]).serve();
    return 0;
  }
  if (argc != 11 && argc != 12) {
    std::fprintf(stderr,
                 "usage: rtlsim PROGRAM WEIGHTS IMAGES OUTPUT FEATURE_WORDS INPUT_BASE INPUT_WORDS "
                 "STALL%% SEED WATCHDOG [ENGINE_WATCHDOG]\n");
    return 1;
  }
  const Bytes images = read_file(argv[3]);
  std::ofstream output(argv[4], std::ios::binary);
  const std::size_t feature_bytes = std::stoull(argv[5]) * 8;
  const std::size_t input_base = std::stoull(argv[6]) * 8, input_bytes = std::stoull(argv[7]) * 8;
  sim::Memory memory;
  memory.add(base::program, read_file(argv[1]));
  memory.add(base::weights, read_file(argv[2]));
  memory.add(base::features, Bytes(feature_bytes));
  auto bench = std::make_unique<Bench>(memory, std::stoi(argv[8]), unsigned(std::stoul(argv[9])),
                                       std::stoull(argv[10]));
  bench->reset();
  bench->write_addresses();
  bench->write_limits(memory.region(0).bytes.size(), memory.region(1).bytes.size(), feature_bytes);
  if (argc == 12) bench->write(winnow::kWatchdogOffset, std::uint32_t(std::stoul(argv[11])));
  bench->write(winnow::kGlobalInterruptOffset, 1);
  bench->write(winnow::kInterruptEnableOffset, 1);
  int failures = 0;
  for (std::size_t image = 0; image < images.size() / input_bytes; image++) {
    Bytes& bytes = memory.region(2).bytes;
    for (std::size_t i = 0; i < bytes.size(); i++) bytes[i] = std::uint8_t(0x5A ^ (i * 37));
    std::copy_n(images.begin() + image * input_bytes, input_bytes, bytes.begin() + input_base);
    bench->program.take_requests();
    const unsigned long long cycles = bench->run();
    const unsigned long long end = bench->cycle;
    if ((bench->read(winnow::kControlOffset) & winnow::kControlDone) == 0) {
      sim::violation("s_axi_control", "done bit not set");
    }
    bench->write(winnow::kInterruptStatusOffset, 1);  // acknowledge the interrupt
    const std::uint32_t status = bench->read(winnow::kStatusOffset);
    const std::uint32_t axi_error = bench->read(winnow::kAxiErrorOffset);
    const unsigned code = winnow::status_code(status);
    std::printf("status %u %u %u\naxi_error %u\nended_by %u\ncounted %u\ncycles %llu\n", code,
                winnow::status_layers(status), winnow::status_images(status), axi_error,
                bench->read(winnow::kEndedByOffset), bench->read(winnow::kCyclesOffset), cycles);
    print_layers(bench->program.take_requests(), end);
    if (code != winnow::kStatusOk || axi_error != 0) failures++;
    output.write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
  }
  output.flush();
  if (!output) {
    std::fprintf(stderr, "error: cannot write %s\n", argv[4]);
    return 1;
  }
  return failures ? 2 : 0;
}
