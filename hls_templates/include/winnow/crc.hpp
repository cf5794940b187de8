// SPDX-License-Identifier: Apache-2.0
// CRC-32 (IEEE 802.3, zlib's crc32) of a stream of words, lowest byte first, a word per step.
//
// A CRC is linear: every bit that is set adds a constant of its own. So a step is one balanced tree
// of exclusive ors over the new word, which can have stages of its own, and one over the state.
#pragma once

#include "winnow/types.hpp"

namespace winnow {

using Crc = ap_uint<32>;

constexpr unsigned kCrcPolynomial = 0xEDB88320u;  // lowest bit first
constexpr unsigned kCrcStart = 0xFFFFFFFFu;

// A bit in the state after `steps` further bits of zero.
constexpr unsigned crc_after(unsigned crc, int steps) {
  return steps == 0 ? crc
                    : crc_after((crc >> 1) ^ ((crc & 1) != 0 ? kCrcPolynomial : 0u), steps - 1);
}

// What bits LOW .. LOW + COUNT - 1 of a word of BITS bits add to the state behind it.
template <int LOW, int COUNT, int BITS>
struct CrcOf {
  template <class T>
  static Crc bits(const T& word) {
#pragma HLS inline
    return CrcOf<LOW, COUNT / 2, BITS>::bits(word) ^
           CrcOf<LOW + COUNT / 2, COUNT - COUNT / 2, BITS>::bits(word);
  }
};
template <int LOW, int BITS>
struct CrcOf<LOW, 1, BITS> {
  template <class T>
  static Crc bits(const T& word) {
#pragma HLS inline
    constexpr unsigned kBit = crc_after(1, BITS - LOW);
    return choose<Crc>(ap_uint<1>(word >> LOW) != 0, Crc(kBit), Crc(0));
  }
};

// The state after one more word. Its complement is the checksum.
template <int BITS>
Crc update_crc(Crc crc, ap_uint<BITS> word) {
#pragma HLS inline
  return CrcOf<0, BITS, BITS>::bits(word) ^ CrcOf<0, 32, BITS>::bits(crc);
}

}  // namespace winnow
