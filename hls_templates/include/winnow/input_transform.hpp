// SPDX-License-Identifier: Apache-2.0
// transform_input: V = clamp(RNE(B^T d B, v_shift)) for kTransformChannels channels per cycle, one
// patch every m cycles, II = 1. Shifts and adds only. Linear layers skip the transform.
// load_v: gathers 8 channels x kPt tiles of one tap into a V word and fills the lane's V bank. In a
// layer of one tile per group a V word holds two sub-rows instead: the last one alone, if their
// number is odd, lies in the upper bytes of the last word.
#pragma once

#include "program.hpp"
#include "winnow/requantize.hpp"
#include "winnow/stream.hpp"
#include "winnow/tokens.hpp"
#include "winnow/transform.hpp"

namespace winnow {

// B^T d B of channel `channel` of a patch, or d itself.
inline void raw_v(const Patch& patch, int channel, const TransformInputConfig& c,
                  ap_int<kVRawBits> (&v)[kLanes]) {
#pragma HLS inline
  ap_int<9> d[kLanes];
bytes:
  for (int t = 0; t < kLanes; t++) {
#pragma HLS unroll
    ap_uint<8> byte = ap_uint<8>(patch.word[t] >> (8 * channel));
    ap_int<8> as_signed = ap_int<8>(byte);
    d[t] = c.in_signed != 0 ? ap_int<9>(as_signed) : ap_int<9>(byte);
  }
  const InputTransform<kM> transform = {c.linear != 0};
  transform_tile<kAlpha, kAlpha>(d, v, transform);
  if (!InputTransform<kM>::kPassesLinear) {
  choose:
    for (int t = 0; t < kLanes; t++) {
#pragma HLS unroll
      v[t] = c.linear != 0 ? ap_int<kVRawBits>(d[t]) : v[t];
    }
  }
}

inline void transform_input(Stream<TransformInputConfig>& config, Stream<Patch>& patches,
                            Stream<VSlice> (&slices)[kLanes]) {
  const TransformInputConfig c = config.read();
  ap_int<9> high = ap_int<9>(c.v_limit);
  ap_int<9> low = ap_int<9>(0 - high);
  Patch patch;
  ap_uint<3> step = 0;
  bool ends_layer;
each_step:
  do {
#pragma HLS pipeline II = 1
    if (step == 0) patch = patches.read();
    bool last_step = step == kTransformSteps - 1;
    VSlice slice[kLanes];
  each_channel:
    for (int k = 0; k < kTransformChannels; k++) {
#pragma HLS unroll
      ap_int<kVRawBits> v[kLanes];
      raw_v(patch, k, c, v);
    each_tap:
      for (int t = 0; t < kLanes; t++) {
#pragma HLS unroll
        slice[t].v[k] = ap_int<8>(clamp<9>(rne_shift(v[t], c.v_shift[t]), low, high));
      }
    }
  send:
    for (int t = 0; t < kLanes; t++) {
#pragma HLS unroll
      slice[t].one_tile = c.one_tile;
      slice[t].ends_strip = last_step && patch.ends_strip != 0;
      slice[t].ends_layer = last_step && patch.ends_layer != 0;
      slices[t].write(slice[t]);
      patch.word[t] = patch.word[t] >> (8 * kTransformChannels);
    }
    ends_layer = last_step && patch.ends_layer != 0;
    step = last_step ? ap_uint<3>(0) : ap_uint<3>(step + 1);
  } while (!ends_layer);
}

// Two tiles of one channel as one multiplier operand: {v1 - (v0 < 0), v0}; two sub-rows as they
// are.
inline Operand pack_operand(const ap_int<8> (&v)[kPt], bool one_tile) {
#pragma HLS inline
  ap_uint<8> low = ap_uint<8>(v[0]);
  if (kPt == 1) return Operand(low);
  ap_uint<8> high = ap_uint<8>(ap_int<8>(v[kPt - 1] - (v[0] < 0 && !one_tile ? 1 : 0)));
  return (Operand(high) << 8) | Operand(low);
}

inline void load_v(Stream<VSlice>& slices, Bank<VBlock>& bank) {
  ap_int<8> first_tile[kSubRow];  // of the pair, oldest channel first
  Operand operands[kSubRow];      // the same of what is packed
#pragma HLS array_partition variable = first_tile type = complete
#pragma HLS array_partition variable = operands type = complete
  VSlice slice;
each_strip:
  do {
    WriteLock<VBlock> block(bank);
    VAddress address = 0;
    ap_uint<4> step = 0;
  each_slice:
    do {
#pragma HLS pipeline II = 1
      slice = slices.read();
      // A borrow needs the first tile's value, which came kTransformSteps slices ago.
      Operand packed[kTransformChannels];
    pack_channels:
      for (int k = 0; k < kTransformChannels; k++) {
#pragma HLS unroll
        ap_int<8> pair[kPt];
        pair[0] = first_tile[k];
        pair[kPt - 1] = slice.v[k];
        packed[k] = pack_operand(pair, slice.one_tile != 0);
      }
    shift_channels:
      for (int k = 0; k < kSubRow - kTransformChannels; k++) {
#pragma HLS unroll
        first_tile[k] = first_tile[k + kTransformChannels];
        operands[k] = operands[k + kTransformChannels];
      }
    take_slice:
      for (int k = 0; k < kTransformChannels; k++) {
#pragma HLS unroll
        first_tile[kSubRow - kTransformChannels + k] = slice.v[k];
        operands[kSubRow - kTransformChannels + k] = packed[k];
      }
      // Half a word is written too: the other half follows, or it is the last sub-row's.
      bool complete = step == kPt * kTransformSteps - 1;
      if (complete || step == kTransformSteps - 1) block[address] = pack_word(operands);
      if (complete) address++;
      step = complete ? ap_uint<4>(0) : ap_uint<4>(step + 1);
    } while (slice.ends_strip == 0);
  } while (slice.ends_layer == 0);
}

}  // namespace winnow
