// SPDX-License-Identifier: Apache-2.0
// hls::stream for openhls: a FIFO between two processes, known by its address.
#pragma once

#include <openhls_channel.h>

namespace hls {

template <class T, int DEPTH = 2>
class stream {
 public:
  stream() {}
  explicit stream(const char*) {}
  stream(const stream&) = delete;
  stream& operator=(const stream&) = delete;

  T read() { return openhls::receive<T>(this, kOpenhlsStream); }
  void read(T& x) { x = read(); }
  void write(const T& x) { openhls::send(this, kOpenhlsStream, x); }
  void operator>>(T& x) { x = read(); }
  void operator<<(const T& x) { write(x); }

 private:
  char identity_;
};

}  // namespace hls
