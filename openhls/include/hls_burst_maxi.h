// SPDX-License-Identifier: Apache-2.0
// hls::burst_maxi for openhls: an AXI4 master with explicit bursts. A copy is the same port.
#pragma once

#include <openhls_channel.h>

namespace hls {

template <class T>
class burst_maxi {
 public:
  void read_request(unsigned long offset, unsigned long length) {
    openhls::send(port_, kOpenhlsReadAddress, Burst{unsigned(offset), unsigned(length)});
  }
  T read() { return openhls::receive<T>(port_, kOpenhlsReadData); }
  void write_request(unsigned long offset, unsigned long length) {
    openhls::send(port_, kOpenhlsWriteAddress, Burst{unsigned(offset), unsigned(length)});
  }
  void write(const T& x) { openhls::send(port_, kOpenhlsWriteData, x); }
  void write_response() { openhls::receive<ap_uint<1>>(port_, kOpenhlsWriteResponse); }

 private:
  struct Burst {
    unsigned offset, length;
  };
  void* port_;
};

}  // namespace hls
