// SPDX-License-Identifier: Apache-2.0
// hls::ram for openhls: a local memory with one read and one write port.
// A read sees every write before it, at any distance: the process keeps its last write beside.
// `#pragma HLS dependence variable = x inter false` says that a read never comes an iteration after
// a write to its address, and saves that.
#pragma once

#include <openhls_channel.h>

namespace hls {

template <class T, int N>
class ram {
 public:
  ram() {}
  ram(const ram&) = delete;
  ram& operator=(const ram&) = delete;

  T read(unsigned address) const { return openhls::read<T>(this, N, address); }
  void write(unsigned address, const T& x) { openhls::write(this, N, address, x); }

 private:
  char identity_;
};

}  // namespace hls
