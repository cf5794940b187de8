// SPDX-License-Identifier: Apache-2.0
// The AXI4 master of host simulation, whose words may be held back. Memory answers at once; who
// waits for a response has left the loop that wrote.
#pragma once

#include "bounded.hpp"

#define burst_maxi immediate_burst_maxi
#include_next <hls_burst_maxi.h>
#undef burst_maxi

namespace hls {

template <class T>
class burst_maxi : public immediate_burst_maxi<T> {
 public:
  using Port = immediate_burst_maxi<T>;
  using Port::Port;

  void write(const T& word) {
    Port port = *this;
    bounded::send("a port", long(this->beats()), [port, word]() mutable {
      port.write(word);
      return true;
    });
  }
  void write_response() {
    bounded::release_all();
    Port::write_response();
  }
};

}  // namespace hls
