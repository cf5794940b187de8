// SPDX-License-Identifier: Apache-2.0
// A local memory with a computed index: one read and one write port. Vitis HLS and host simulation
// use this plain array; openhls supplies a header of the same name that becomes a RAM macro.
#pragma once

namespace hls {

template <class T, int N>
class ram {
 public:
  // Inlined, so that the pragmas are those of the process that holds the memory.
  ram() {
#pragma HLS inline
#pragma HLS bind_storage variable = words_ type = ram_s2p impl = bram
#pragma HLS dependence variable = words_ type = inter false
  }
  T read(unsigned address) const {
#pragma HLS inline
    return words_[address];
  }
  void write(unsigned address, const T& value) {
#pragma HLS inline
    words_[address] = value;
  }

 private:
  T words_[N];
};

}  // namespace hls
