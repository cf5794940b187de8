// SPDX-License-Identifier: Apache-2.0
// Number types and sizes shared by all processes of the engine.
// Everything is derived from the constants of the generated config.hpp.
#pragma once

#include <ap_int.h>

#include "config.hpp"

namespace winnow {

constexpr int ceil_log2(int x) {
  return x <= 1 ? 0 : 1 + ceil_log2((x + 1) / 2);
}

constexpr int kSubRow = 8;  // channels of a sub-row and of a feature word
constexpr int kAlpha = kM + 2;
constexpr int kLanes = kAlpha * kAlpha;  // one lane per Winograd tap
constexpr int kTilePixels = kM * kM;
constexpr int kLinearTiles = kLanes / kTilePixels;  // output tiles of a direct pass
constexpr int kLinearPixels = kLinearTiles * kTilePixels;
constexpr int kBlocksPerGroup = kSubRow / kPo;
constexpr int kIndexBits = 3;
constexpr int kTransformChannels = kSubRow / kM;  // channels transformed per cycle
constexpr int kTransformSteps = kSubRow / kTransformChannels;
constexpr int kVRawBits = kM == 2 ? 11 : 16;  // exact B^T d B of 9-bit inputs
constexpr int kSumBits = kPt * kAccBits;
constexpr int kLanesPerBeat = kAxiBits / (kSubRow * kPo);
constexpr int kBiasBeats = (kPo * 32 + kAxiBits - 1) / kAxiBits;

static_assert(kM == 2 || kM == 4, "F(2,3) and F(4,3) only");
static_assert(kSubRow % kPo == 0, "a group of 8 channels is a whole number of blocks");
static_assert(kPt == 1 || kPt == 2, "a product holds one or two tiles");
static_assert(kSumBits <= 64, "packed sums stay within one machine word");
static_assert(kLanesPerBeat >= 1 && kLanes % kLanesPerBeat == 0, "beats hold whole lane words");

using Word = ap_uint<64>;        // one pixel: bytes of 8 consecutive channels, lowest first
using Beat = ap_uint<kAxiBits>;  // one beat of the weight port
using Count = ap_uint<16>;
using Address = ap_uint<32>;
using Length = ap_uint<32>;  // of a memory, in words or beats of its port
using VAddress = ap_uint<ceil_log2(kVWords)>;
using WAddress = ap_uint<ceil_log2(kWWords)>;
using PlaneAddress = ap_uint<ceil_log2(kPlanePixels)>;
using TileAddress = ap_uint<ceil_log2(kOutTiles)>;
using Accumulator = ap_int<kYBits>;

// A multiplexer of values. A conditional expression of two variables would be one of their
// addresses, which keeps both in memory.
template <class T>
T choose(bool condition, T when_true, T when_false) {
#pragma HLS inline
  return condition ? when_true : when_false;
}

// Select element `index` of N by a binary tree of multiplexers.
template <int N, class T>
struct Select {
  static T of(const T* values, unsigned index) {
#pragma HLS inline
    return choose<T>((index & (N / 2)) != 0, Select<N / 2, T>::of(values + N / 2, index),
                     Select<N / 2, T>::of(values, index));
  }
};
template <class T>
struct Select<1, T> {
  static T of(const T* values, unsigned) {
#pragma HLS inline
    return values[0];
  }
};

// A word of a memory is one number of elements of BITS bits, the first one lowest: Vitis HLS takes
// an array of structs apart into an array per member (docs/vitis.md).
template <int BITS, int N>
ap_uint<N * BITS> pack_word(const ap_uint<BITS> (&elements)[N]) {
#pragma HLS inline
  ap_uint<N * BITS> word = 0;
pack:
  for (int i = 0; i < N; i++) {
#pragma HLS unroll
    word = word | (ap_uint<N * BITS>(elements[i]) << (BITS * i));
  }
  return word;
}
template <int BITS, int N>
void unpack_word(ap_uint<N * BITS> word, ap_uint<BITS> (&elements)[N]) {
#pragma HLS inline
unpack:
  for (int i = 0; i < N; i++) {
#pragma HLS unroll
    elements[i] = ap_uint<BITS>(word >> (BITS * i));
  }
}

}  // namespace winnow
