// SPDX-License-Identifier: Apache-2.0
#include "bench.hpp"

#include <cstdio>
#include <cstdlib>
#include <map>

Payload pack(std::initializer_list<Part> parts) {
  Payload result{};
  int low = 0;
  for (const Part& part : parts) {
    for (int i = 0; i < part.bits; ++i, ++low) {
      if (part.value >> i & 1) result[low / 32] |= 1u << low % 32;
    }
  }
  return result;
}

std::uint64_t bits(const Payload& payload, int low, int count) {
  std::uint64_t result = 0;
  for (int i = 0; i < count; ++i) {
    const int at = low + i;
    result |= static_cast<std::uint64_t>(payload[at / 32] >> at % 32 & 1) << i;
  }
  return result;
}

Payload masked(Payload payload, int width) {
  for (int i = 0; i < 5; ++i) {
    const int left = width - 32 * i;
    if (left <= 0) payload[i] = 0;
    if (left > 0 && left < 32) payload[i] &= (1u << left) - 1;
  }
  return payload;
}

static std::string text(const Payload& payload) {
  std::string result = "0x";
  for (int i = 4; i >= 0; --i) {
    char digits[9];
    std::snprintf(digits, sizeof digits, "%08x", payload[i]);
    result += digits;
  }
  return result;
}

Payload Channel::data() const {
  Payload result;
  for (int i = 0; i < 5; ++i) result[i] = pins.data[i];
  return result;
}

void Channel::put(const Payload& payload) {
  for (int i = 0; i < 5; ++i) pins.data[i] = payload[i];
}

Bench::Bench(const Options& options)
    : options_(options), context_(options.seed), rng_(options.seed) {
  top.clk = 0;
  top.rst = 1;
  top.eval();
}

Channel& Bench::source(const std::string& name, Pins pins) {
  channels_.push_back(std::make_unique<Channel>(name, pins, true, options_.stall));
  return *channels_.back();
}

Channel& Bench::sink(const std::string& name, Pins pins) {
  channels_.push_back(std::make_unique<Channel>(name, pins, false, options_.stall));
  return *channels_.back();
}

Payload Bench::random_payload(int width) {
  Payload payload;
  for (std::uint32_t& word : payload) word = static_cast<std::uint32_t>(random());
  return masked(payload, width);
}

void Bench::fail(const std::string& what) const {
  throw Failure("cycle " + std::to_string(now) + ": " + what);
}

void Bench::check(bool holds, const std::string& what) const {
  if (!holds) fail(what);
}

void Bench::equal(const std::string& what, Payload got, Payload want) {
  static long count = 0;
  if (count++ == options_.flip) want[0] ^= 1;
  if (got != want) fail(what + ": got " + text(got) + ", expected " + text(want));
}

void Bench::drive(Channel& channel) {
  const bool willing = !chance(channel.stall);
  if (!channel.is_source) {
    channel.pins.rdy = willing && channel.gate();
    return;
  }
  if (!channel.active) channel.active = willing && !channel.queue.empty() && channel.gate();
  channel.pins.vld = channel.active;
  channel.put(channel.active ? channel.queue.front() : random_payload(160));
}

void Bench::sample(Channel& channel) {
  const bool vld = channel.pins.vld, rdy = channel.pins.rdy;
  const Payload data = channel.data();
  if (channel.waits) {
    check(vld, channel.name + ": vld fell before rdy");
    check(data == channel.offered, channel.name + ": data changed before rdy");
  }
  channel.waits = !channel.is_source && vld && !rdy;
  channel.offered = data;
  if (!vld || !rdy) return;
  if (channel.is_source) {
    channel.queue.pop_front();
    channel.active = false;
  }
  ++channel.count;
  channel.on_fire(data);
}

void Bench::tick() {
  top.clk = 1;
  top.eval();
  top.clk = 0;
  top.eval();
  ++now;
}

// A channel's rdy must not follow its own vld, nor its vld and data its own rdy.
void Bench::check_own_path(Channel& channel) {
  CData& input = channel.is_source ? channel.pins.vld : channel.pins.rdy;
  const CData rdy = channel.pins.rdy, vld = channel.pins.vld;
  const Payload data = channel.data();
  input = !input;
  if (channel.is_source) channel.put(random_payload(160));
  top.eval();
  const bool same = channel.is_source ? channel.pins.rdy == rdy
                                      : channel.pins.vld == vld && channel.data() == data;
  check(same, channel.name + ": a combinational path from its input to its output");
  input = !input;
  if (channel.is_source) channel.put(data);
  top.eval();
}

void Bench::check_paths() {
  for (auto& channel : channels_) check_own_path(*channel);
  std::vector<CData> outputs;
  std::vector<Payload> data;
  for (auto& channel : channels_) {
    outputs.push_back(channel->is_source ? channel->pins.rdy : channel->pins.vld);
    data.push_back(channel->data());
    CData& input = channel->is_source ? channel->pins.vld : channel->pins.rdy;
    input = !input;
    if (channel->is_source) channel->put(random_payload(160));
  }
  top.eval();
  for (std::size_t i = 0; i < channels_.size(); ++i) {
    Channel& channel = *channels_[i];
    const CData output = channel.is_source ? channel.pins.rdy : channel.pins.vld;
    const bool same = output == outputs[i] && (channel.is_source || channel.data() == data[i]);
    check(same || !channel.registered,
          channel.name + ": a combinational path from another channel");
    if (channel.is_source) channel.put(data[i]);
    CData& input = channel.is_source ? channel.pins.vld : channel.pins.rdy;
    input = !input;
  }
  top.eval();
}

void Bench::cycle() {
  for (auto& channel : channels_) drive(*channel);
  top.eval();
  if (now < paths_until) check_paths();
  for (auto& channel : channels_) sample(*channel);
  every_cycle();
  tick();
}

// Inputs are random while rst is high; outputs of registered channels must be quiet.
void Bench::reset() {
  top.rst = 1;
  for (int i = 0; i < 4; ++i) {
    for (auto& channel : channels_) {
      CData& input = channel->is_source ? channel->pins.vld : channel->pins.rdy;
      input = random() & 1;
      if (channel->is_source) channel->put(random_payload(160));
    }
    top.eval();
    for (auto& channel : channels_) {
      const bool must = i > 0 && !channel->is_source && channel->registered && channel->quiet;
      check(!must || !channel->pins.vld, channel->name + ": vld in reset");
    }
    tick();
  }
  for (auto& channel : channels_) {
    channel->queue.clear();
    channel->active = channel->waits = false;
    channel->count = 0;
  }
  top.rst = 0;
}

void Bench::run_until(const std::string& what, long limit, const std::function<bool()>& done) {
  const long end = now + limit;
  while (!done()) {
    check(now < end, "timeout: " + what);
    cycle();
  }
}

int main(int argc, char** argv) {
  const std::map<std::string, void (*)(const Options&)> tests = {
      {"fifo", test_fifo},      {"credit", test_credit}, {"ram", test_ram},
      {"bank", test_bank},      {"reader", test_reader}, {"writer", test_writer},
      {"control", test_control}};
  if (argc < 4 || tests.count(argv[1]) == 0) {
    std::fprintf(stderr, "usage: %s fifo|credit|ram|bank|reader|writer|control STALL SEED [FLIP]\n",
                 argv[0]);
    return 2;
  }
  Options options;
  options.stall = std::atof(argv[2]);
  options.seed = static_cast<unsigned>(std::atol(argv[3]));
  if (argc > 4) options.flip = std::atol(argv[4]);
  try {
    tests.at(argv[1])(options);
  } catch (const Failure& failure) {
    std::printf("%s stall %s seed %s: %s\n", argv[1], argv[2], argv[3], failure.what());
    return 1;
  }
  return 0;
}
