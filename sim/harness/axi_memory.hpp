// SPDX-License-Identifier: Apache-2.0
// A memory behind AXI4 masters of a Verilated design: one model per master, all sharing one set of
// regions. Every channel can be stalled at random. Violations of the protocol that a slave can see
// (burst over 4 KiB, wrong WLAST, unaligned address, valid withdrawn) end the simulation.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <random>
#include <string>
#include <vector>

namespace sim {

struct Region {
  std::uint64_t base;
  std::vector<std::uint8_t> bytes;
};

class Memory {
 public:
  void add(std::uint64_t base, std::vector<std::uint8_t> bytes) {
    regions_.push_back({base, std::move(bytes)});
  }
  Region& region(std::size_t i) { return regions_[i]; }
  // Bytes at an address, or null when any of them lies outside of all regions.
  std::uint8_t* at(std::uint64_t address, std::size_t count) {
    for (Region& r : regions_) {
      if (address >= r.base && address + count <= r.base + r.bytes.size()) {
        return r.bytes.data() + (address - r.base);
      }
    }
    return nullptr;
  }

 private:
  std::vector<Region> regions_;
};

class Stall {
 public:
  Stall(int percent, unsigned seed) : percent_(percent), random_(seed) {}
  bool operator()() { return percent_ > 0 && int(random_() % 100) < percent_; }

 private:
  int percent_;
  std::mt19937 random_;
};

[[noreturn]] inline void violation(const std::string& port, const char* rule) {
  std::fprintf(stderr, "error: AXI port %s: %s\n", port.c_str(), rule);
  std::exit(3);
}

struct Burst {
  std::uint64_t address;
  unsigned beats;
  unsigned long long ready_at;  // clock cycle
};

constexpr int kOkay = 0, kDecodeError = 3;
constexpr unsigned kPage = 4096;

template <class Signals>
void check_burst(const std::string& port, std::uint64_t address, unsigned beats, unsigned width) {
  if (address % width != 0) violation(port, "address not aligned to the data width");
  if (address / kPage != (address + std::uint64_t(beats) * width - 1) / kPage) {
    violation(port, "burst crosses a 4 KiB boundary");
  }
}

// Read side of a master. `Signals` binds the pins; sample() sees them before the clock edge, drive()
// sets the slave's outputs after it.
template <class Signals>
class ReadSlave {
 public:
  ReadSlave(std::string name, Signals pins, Memory& memory, int stall_percent, unsigned seed,
            unsigned latency)
      : name_(std::move(name)), pins_(pins), memory_(memory), stall_(stall_percent, seed),
        latency_(latency) {}

  void sample(unsigned long long cycle) {
    if (*pins_.ar_valid && *pins_.ar_ready) {
      unsigned beats = unsigned(*pins_.ar_len) + 1;
      check_burst<Signals>(name_, *pins_.ar_addr, beats, Signals::kBytes);
      bursts_.push_back({*pins_.ar_addr, beats, cycle + latency_});
      requests_.push_back({*pins_.ar_addr, cycle});
    } else if (ar_waiting_ && !*pins_.ar_valid) {
      violation(name_, "ARVALID withdrawn before ARREADY");
    }
    ar_waiting_ = *pins_.ar_valid && !*pins_.ar_ready;
    if (*pins_.r_valid && *pins_.r_ready) {
      offered_ = false;
      beats_++;
      Burst& burst = bursts_.front();
      burst.address += Signals::kBytes;
      if (--burst.beats == 0) bursts_.pop_front();
    }
  }

  void drive(unsigned long long cycle) {
    *pins_.ar_ready = bursts_.size() < 16 && !stall_();
    if (!offered_) offered_ = !bursts_.empty() && bursts_.front().ready_at <= cycle && !stall_();
    *pins_.r_valid = offered_;
    if (!offered_) return;
    const Burst& burst = bursts_.front();
    const std::uint8_t* bytes = memory_.at(burst.address, Signals::kBytes);
    if (bytes != nullptr) {
      std::memcpy(pins_.r_data, bytes, Signals::kBytes);
    } else {
      std::memset(pins_.r_data, 0xEE, Signals::kBytes);
    }
    *pins_.r_resp = bytes != nullptr ? kOkay : kDecodeError;
    *pins_.r_last = burst.beats == 1;
  }

  std::uint64_t beats() const { return beats_; }
  struct Request {
    std::uint64_t address;
    unsigned long long cycle;
  };
  // Accepted read addresses since the last call.
  std::vector<Request> take_requests() {
    std::vector<Request> taken;
    taken.swap(requests_);
    return taken;
  }

 private:
  std::string name_;
  Signals pins_;
  Memory& memory_;
  Stall stall_;
  unsigned latency_;
  std::deque<Burst> bursts_;
  std::vector<Request> requests_;
  bool offered_ = false, ar_waiting_ = false;
  std::uint64_t beats_ = 0;
};

template <class Signals>
class WriteSlave {
 public:
  WriteSlave(std::string name, Signals pins, Memory& memory, int stall_percent, unsigned seed,
             unsigned latency)
      : name_(std::move(name)), pins_(pins), memory_(memory), stall_(stall_percent, seed),
        latency_(latency) {}

  void sample(unsigned long long cycle) {
    if (*pins_.aw_valid && *pins_.aw_ready) {
      unsigned beats = unsigned(*pins_.aw_len) + 1;
      check_burst<Signals>(name_, *pins_.aw_addr, beats, Signals::kBytes);
      bursts_.push_back({*pins_.aw_addr, beats, 0});
      errors_.push_back(false);
    } else if (aw_waiting_ && !*pins_.aw_valid) {
      violation(name_, "AWVALID withdrawn before AWREADY");
    }
    aw_waiting_ = *pins_.aw_valid && !*pins_.aw_ready;
    if (*pins_.w_valid && *pins_.w_ready) accept_beat(cycle);
    if (*pins_.b_valid && *pins_.b_ready) {
      offered_ = false;
      responses_.pop_front();
    }
  }

  void drive(unsigned long long cycle) {
    *pins_.aw_ready = bursts_.size() < 16 && !stall_();
    *pins_.w_ready = !bursts_.empty() && !stall_();
    if (!offered_) {
      offered_ = !responses_.empty() && responses_.front().ready_at <= cycle && !stall_();
    }
    *pins_.b_valid = offered_;
    if (offered_) *pins_.b_resp = responses_.front().code;
  }

  std::uint64_t beats() const { return beats_; }

 private:
  struct Response {
    int code;
    unsigned long long ready_at;
  };

  void accept_beat(unsigned long long cycle) {
    beats_++;
    Burst& burst = bursts_.front();
    std::uint8_t* bytes = memory_.at(burst.address, Signals::kBytes);
    if (bytes == nullptr) errors_.front() = true;
    const std::uint8_t* data = reinterpret_cast<const std::uint8_t*>(pins_.w_data);
    for (unsigned i = 0; i < Signals::kBytes && bytes != nullptr; i++) {
      if ((std::uint64_t(*pins_.w_strb) >> i) & 1) bytes[i] = data[i];
    }
    burst.address += Signals::kBytes;
    if ((--burst.beats == 0) != bool(*pins_.w_last)) violation(name_, "WLAST on the wrong beat");
    if (burst.beats == 0) {
      responses_.push_back({errors_.front() ? kDecodeError : kOkay, cycle + latency_});
      bursts_.pop_front();
      errors_.pop_front();
    }
  }

  std::string name_;
  Signals pins_;
  Memory& memory_;
  Stall stall_;
  unsigned latency_;
  std::deque<Burst> bursts_;
  std::deque<bool> errors_;
  std::deque<Response> responses_;
  bool offered_ = false, aw_waiting_ = false;
  std::uint64_t beats_ = 0;
};

}  // namespace sim
