// SPDX-License-Identifier: Apache-2.0
// A memory behind AXI4 masters of a Verilated design: one model per master, all sharing one set of
// regions. Every channel can be stalled at random. Violations of the protocol that a slave can see
// (burst over 4 KiB, wrong WLAST, unaligned address, another size or burst type, a request
// withdrawn or changed) end the simulation.
#pragma once

#include <verilated.h>

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
  void remove(std::uint64_t base) {
    for (std::size_t i = 0; i < regions_.size(); i++) {
      if (regions_[i].base == base) {
        regions_.erase(regions_.begin() + std::ptrdiff_t(i));
        return;
      }
    }
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

constexpr int kOkay = 0, kDecodeError = 3, kIncrementing = 1;
constexpr unsigned kPage = 4096, kMaxOutstanding = 16;

// The pins of channel AR or AW.
struct AddressPins {
  CData *valid, *ready;
  QData* address;
  CData *length, *size, *burst;
};

// The pins of a master that reads words of type Data.
template <class Data, unsigned BYTES>
struct ReadPins {
  static constexpr unsigned kBytes = BYTES;
  AddressPins ar;
  CData *r_valid, *r_ready;
  Data* r_data;
  CData *r_resp, *r_last;
};

// The pins of a master that writes words of 8 bytes.
struct WritePins {
  static constexpr unsigned kBytes = 8;
  AddressPins aw;
  CData *w_valid, *w_ready;
  QData* w_data;
  CData *w_strb, *w_last;
  CData *b_valid, *b_ready, *b_resp;
};

#define ADDRESS_PINS(top, port, A)                                     \
  {&(top).m_axi_##port##_##A##VALID, &(top).m_axi_##port##_##A##READY, \
   &(top).m_axi_##port##_##A##ADDR,  &(top).m_axi_##port##_##A##LEN,   \
   &(top).m_axi_##port##_##A##SIZE,  &(top).m_axi_##port##_##A##BURST}
#define READ_PINS(top, port)                                                                \
  {ADDRESS_PINS(top, port, AR), &(top).m_axi_##port##_RVALID, &(top).m_axi_##port##_RREADY, \
   &(top).m_axi_##port##_RDATA, &(top).m_axi_##port##_RRESP,  &(top).m_axi_##port##_RLAST}
#define WRITE_PINS(top, port)                                                                \
  {ADDRESS_PINS(top, port, AW),  &(top).m_axi_##port##_WVALID, &(top).m_axi_##port##_WREADY, \
   &(top).m_axi_##port##_WDATA,  &(top).m_axi_##port##_WSTRB,  &(top).m_axi_##port##_WLAST,  \
   &(top).m_axi_##port##_BVALID, &(top).m_axi_##port##_BREADY, &(top).m_axi_##port##_BRESP}

// Accepts the requests of channel AR or AW and checks them.
class AddressChannel {
 public:
  AddressChannel(const std::string& port, const char* channel, AddressPins pins, unsigned width)
      : name_(port + " " + channel), pins_(pins), width_(width) {}

  // See the pins before the clock edge; true when a burst was accepted.
  bool sample(Burst& accepted) {
    const Burst request = {*pins_.address, unsigned(*pins_.length) + 1, 0};
    if (waiting_ && !*pins_.valid) violation(name_, "VALID withdrawn before READY");
    if (waiting_ && (request.address != waited_.address || request.beats != waited_.beats)) {
      violation(name_, "changed before READY");
    }
    waiting_ = *pins_.valid && !*pins_.ready;
    waited_ = request;
    if (!*pins_.valid || waiting_) return false;
    check(request);
    accepted = request;
    return true;
  }
  void drive(bool ready) { *pins_.ready = ready; }

 private:
  void check(const Burst& burst) const {
    if (1u << *pins_.size != width_) violation(name_, "size is not the width of the data");
    if (*pins_.burst != kIncrementing) violation(name_, "burst does not increment");
    if (burst.address % width_ != 0) violation(name_, "address not aligned to the data width");
    const std::uint64_t last = burst.address + std::uint64_t(burst.beats) * width_ - 1;
    if (burst.address / kPage != last / kPage) violation(name_, "burst crosses a 4 KiB boundary");
  }

  std::string name_;
  AddressPins pins_;
  unsigned width_;
  bool waiting_ = false;
  Burst waited_{};
};

// Read side of a master. `Signals` binds the pins; sample() sees them before the clock edge,
// drive() sets the slave's outputs after it.
template <class Signals>
class ReadSlave {
 public:
  ReadSlave(std::string name, Signals pins, Memory& memory, int stall_percent, unsigned seed,
            unsigned latency)
      : address_(name, "AR", pins.ar, Signals::kBytes),
        pins_(pins),
        memory_(memory),
        stall_(stall_percent, seed),
        latency_(latency) {}

  void sample(unsigned long long cycle) {
    Burst accepted;
    if (address_.sample(accepted)) {
      accepted.ready_at = cycle + latency_;
      bursts_.push_back(accepted);
      requests_.push_back({accepted.address, cycle});
    }
    if (*pins_.r_valid && *pins_.r_ready) {
      offered_ = false;
      beats_++;
      Burst& burst = bursts_.front();
      burst.address += Signals::kBytes;
      if (--burst.beats == 0) bursts_.pop_front();
    }
  }

  void drive(unsigned long long cycle) {
    address_.drive(bursts_.size() < kMaxOutstanding && !stall_());
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
  AddressChannel address_;
  Signals pins_;
  Memory& memory_;
  Stall stall_;
  unsigned latency_;
  std::deque<Burst> bursts_;
  std::vector<Request> requests_;
  bool offered_ = false;
  std::uint64_t beats_ = 0;
};

template <class Signals>
class WriteSlave {
 public:
  WriteSlave(std::string name, Signals pins, Memory& memory, int stall_percent, unsigned seed,
             unsigned latency)
      : name_(name),
        address_(name, "AW", pins.aw, Signals::kBytes),
        pins_(pins),
        memory_(memory),
        stall_(stall_percent, seed),
        latency_(latency) {}

  void sample(unsigned long long cycle) {
    Burst accepted;
    if (address_.sample(accepted)) {
      bursts_.push_back(accepted);
      errors_.push_back(false);
    }
    if (*pins_.w_valid && *pins_.w_ready) accept_beat(cycle);
    if (*pins_.b_valid && *pins_.b_ready) {
      offered_ = false;
      responses_.pop_front();
    }
  }

  void drive(unsigned long long cycle) {
    address_.drive(bursts_.size() < kMaxOutstanding && !stall_());
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
  AddressChannel address_;
  Signals pins_;
  Memory& memory_;
  Stall stall_;
  unsigned latency_;
  std::deque<Burst> bursts_;
  std::deque<bool> errors_;
  std::deque<Response> responses_;
  bool offered_ = false;
  std::uint64_t beats_ = 0;
};

}  // namespace sim
