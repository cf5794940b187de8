// SPDX-License-Identifier: Apache-2.0
// Host simulation of an AXI4 master with explicit bursts; same calls as the vendor's class.
// Memory is a span of T; an access outside of it, a read without request or a burst left unfinished
// ends the program with a message, as an AXI error would end a test.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <utility>

namespace hls {

template <class T>
class burst_maxi {
 public:
  burst_maxi(const char* name, T* begin, std::size_t size)
      : state_(std::make_shared<State>(name, begin, size)) {}

  void read_request(std::size_t offset, std::size_t length) {
    check(offset, length, "read");
    state_->reads.emplace_back(offset, length);
  }
  T read() { return state_->begin[next(state_->reads, "read")]; }

  void write_request(std::size_t offset, std::size_t length) {
    check(offset, length, "write");
    state_->writes.emplace_back(offset, length);
    state_->open_responses++;
  }
  void write(const T& value) { state_->begin[next(state_->writes, "write")] = value; }
  void write_response() {
    if (state_->open_responses == 0) fail("write_response without a request", 0, 0);
    state_->open_responses--;
  }

  // Whether every requested burst was carried out and acknowledged.
  bool idle() const {
    return state_->reads.empty() && state_->writes.empty() && state_->open_responses == 0;
  }
  std::uint64_t beats() const { return state_->beats; }

 private:
  using Burst = std::pair<std::size_t, std::size_t>;  // next offset, beats left
  struct State {
    State(const char* n, T* b, std::size_t s) : name(n), begin(b), size(s) {}
    const char* name;
    T* begin;
    std::size_t size;
    std::deque<Burst> reads, writes;
    std::size_t open_responses = 0;
    std::uint64_t beats = 0;
  };

  void check(std::size_t offset, std::size_t length, const char* what) const {
    if (length == 0) fail("burst of length zero", offset, length);
    if (offset > state_->size || length > state_->size - offset) fail(what, offset, length);
  }
  std::size_t next(std::deque<Burst>& bursts, const char* what) {
    if (bursts.empty()) fail(what, 0, 0);
    Burst& burst = bursts.front();
    std::size_t offset = burst.first++;
    state_->beats++;
    if (--burst.second == 0) bursts.pop_front();
    return offset;
  }
  [[noreturn]] void fail(const char* what, std::size_t offset, std::size_t length) const {
    std::fprintf(stderr, "error: port %s: bad %s at word %zu, %zu words, memory has %zu words\n",
                 state_->name, what, offset, length, state_->size);
    std::exit(3);
  }

  std::shared_ptr<State> state_;
};

}  // namespace hls
