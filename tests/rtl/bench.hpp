// SPDX-License-Identifier: Apache-2.0
// Drives the channels of openhls_bench.sv at random speed and checks the ready/valid rules.
//
// A cycle: inputs change, the model settles, handshakes are noted (callbacks run in the order in
// which the channels were made), the clock ticks. What a callback enqueues is offered in the next
// cycle at the earliest.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "Vopenhls_bench.h"

using Payload = std::array<std::uint32_t, 5>;

struct Part {
  std::uint64_t value;
  int bits;
};

// Returns the parts side by side, the first one lowest.
Payload pack(std::initializer_list<Part> parts);
std::uint64_t bits(const Payload& payload, int low, int count);
Payload masked(Payload payload, int width);

struct Options {
  double stall = 0;
  unsigned seed = 1;
  long flip = -1;  // the number of the comparison that gets a wrong expectation
};

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Pins {
  VlWide<5>& data;
  CData& vld;
  CData& rdy;
};

struct Channel {
  Channel(std::string name, Pins pins, bool is_source, double stall)
      : name(std::move(name)), pins(pins), is_source(is_source), stall(stall) {}

  std::string name;
  Pins pins;
  bool is_source;             // the bench sends
  double stall;               // the chance not to send or accept in a cycle
  bool registered = false;    // no input of any channel may reach its output
  bool quiet = true;          // if registered: its vld is low in reset
  std::deque<Payload> queue;  // of a source: what is to be sent
  std::function<void(const Payload&)> on_fire = [](const Payload&) {};
  std::function<bool()> gate = [] { return true; };  // may it send or accept now?
  bool active = false;                               // of a source: it is offering queue.front()
  bool waits = false;  // of a sink: it was offered `offered` in the last cycle, and did not accept
  Payload offered{};
  long count = 0;  // handshakes since the reset

  Payload data() const;
  void put(const Payload& payload);
};

// Memories and registers start with random values.
struct Context : VerilatedContext {
  explicit Context(unsigned seed) {
    randReset(2);
    randSeed(static_cast<int>(seed) + 1);
  }
};

class Bench {
 public:
  explicit Bench(const Options& options);
  ~Bench() { top.final(); }

  Channel& source(const std::string& name, Pins pins);
  Channel& sink(const std::string& name, Pins pins);
  void reset();
  void cycle();
  void run_until(const std::string& what, long limit, const std::function<bool()>& done);

  std::uint64_t random() { return rng_(); }
  std::uint64_t random(std::uint64_t from, std::uint64_t to) {
    return from + rng_() % (to - from + 1);
  }
  bool chance(double p) { return static_cast<double>(rng_() >> 11) < p * 9007199254740992.0; }
  Payload random_payload(int width);
  void fail(const std::string& what) const;
  void check(bool holds, const std::string& what) const;
  void equal(const std::string& what, Payload got, Payload want);
  void equal(const std::string& what, std::uint64_t got, std::uint64_t want) {
    equal(what, pack({{got, 64}}), pack({{want, 64}}));
  }

 private:
  Options options_;
  Context context_;
  std::mt19937_64 rng_;
  std::vector<std::unique_ptr<Channel>> channels_;

  void drive(Channel& channel);
  void sample(Channel& channel);
  void tick();
  void check_paths();
  void check_own_path(Channel& channel);

 public:
  Vopenhls_bench top{&context_};
  std::function<void()> every_cycle = [] {};
  long now = 0;
  long paths_until = 0;  // the cycle up to which combinational paths are looked for
};

#define PINS(bench, channel, i)                                                               \
  Pins {                                                                                      \
    (bench).top.channel##_data[i], (bench).top.channel##_vld[i], (bench).top.channel##_rdy[i] \
  }
#define SOURCE(bench, channel, i) \
  (bench).source(#channel "[" + std::to_string(i) + "]", PINS(bench, channel, i))
#define SINK(bench, channel, i) \
  (bench).sink(#channel "[" + std::to_string(i) + "]", PINS(bench, channel, i))

void test_fifo(const Options& options);
void test_credit(const Options& options);
void test_ram(const Options& options);
void test_bank(const Options& options);
void test_reader(const Options& options);
void test_writer(const Options& options);
void test_control(const Options& options);
