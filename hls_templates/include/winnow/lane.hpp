// SPDX-License-Identifier: Apache-2.0
// The tap lane, the heart of the engine: one per Winograd tap, all alike.
//   load_w         fills the lane's W bank, one block at a time
//   multiply_lane  each step reads one V word (8 channels x kPt tiles) and one W word (kPo weights
//                  with their indices), multiplies and accumulates. II = 1 across sub-rows, tile
//                  groups, blocks and strips.
//   drain_lane     hands the kPo x kPt sums on, one per cycle, while the next ones build up
//
// With two tiles, one product (v1 * 2^17 + v0) * w carries both: 25 x 8 bits, one DSP48. Its low
// field is v0 * w (17 bits, V and W are symmetric), the high one v1 * w less the borrow of the low
// one. Re-spaced to kAccBits the fields are added as one number modulo 2^kSumBits; drain_lane
// returns the last borrow.
#pragma once

#include "winnow/stream.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

inline void load_w(Stream<WToken>& words, Bank<WBlock>& bank) {
  WToken token;
each_block:
  do {
    WriteLock<WBlock> block(bank);
    WAddress address = 0;
  each_word:
    do {
#pragma HLS pipeline II = 1
      token = words.read();
      block[address] = token.word;
      address++;
    } while (token.ends_block == 0);
  } while (token.ends_layer == 0);
}

constexpr int kProductSpacing = 17;

// One multiplication: kPt products in fields of kAccBits, the upper one short of its borrow.
inline ap_uint<kSumBits> multiply(ap_uint<8 * kPt> v, ap_int<8> w) {
#pragma HLS inline
  ap_int<8> low = ap_int<8>(v);
  if (kPt == 1) return ap_uint<kSumBits>(ap_int<kSumBits>(ap_int<16>(low * w)));
  ap_int<8> high = ap_int<8>(v >> (8 * (kPt - 1)));
  // {high, low sign-extended to 17 bits}: wiring, no adder
  ap_int<25> operand = (ap_int<25>(high) << kProductSpacing) |
                       ap_int<25>(ap_uint<kProductSpacing>(ap_int<kProductSpacing>(low)));
  ap_int<33> product = operand * w;
#pragma HLS bind_op variable = product op = mul impl = dsp
  ap_int<kProductSpacing> low_field = ap_int<kProductSpacing>(product);
  ap_int<16> high_field = ap_int<16>(product >> kProductSpacing);
  ap_uint<kSumBits> low_sum = ap_uint<kSumBits>(ap_uint<kAccBits>(ap_int<kAccBits>(low_field)));
  ap_uint<kSumBits> high_sum = ap_uint<kSumBits>(ap_int<kSumBits>(high_field));
  return (high_sum << (kAccBits * (kPt - 1))) | low_sum;
}

inline void multiply_lane(Stream<Step>& steps, Bank<VBlock>& v_bank, Bank<WBlock>& w_bank,
                          Stream<Sums>& sums) {
  ap_uint<kSumBits> acc[kPo];
#pragma HLS array_partition variable = acc type = complete
  Step step;
each_strip:
  do {
    ReadLock<VBlock> v_block(v_bank);
  each_block:
    do {
      ReadLock<WBlock> w_block(w_bank);
    each_step:
      do {
#pragma HLS pipeline II = 1
        step = steps.read();
        VWord v = v_block[step.v_address];
        WWord w = w_block[step.w_address];
        Sums result;
      each_channel:
        for (int p = 0; p < kPo; p++) {
#pragma HLS unroll
          ap_uint<8 * kPt> operand =
              Select<kSubRow, ap_uint<8 * kPt>>::of(v.channel, unsigned(w.entry[p].index));
          ap_uint<kSumBits> product = multiply(operand, w.entry[p].value);
          ap_uint<kSumBits> before = step.first != 0 ? ap_uint<kSumBits>(0) : acc[p];
          acc[p] = before + product;
          result.sum[p] = acc[p];
        }
        result.last_group = step.ends_block;
        result.ends_layer = step.ends_layer;
        if (step.last != 0) sums.write(result);
      } while (step.ends_block == 0);
    } while (step.ends_strip == 0);
  } while (step.ends_layer == 0);
}

// The sum of tile `tile` out of a packed pair.
inline ap_int<kAccBits> unpack_sum(ap_uint<kSumBits> sum, ap_uint<1> tile) {
#pragma HLS inline
  ap_int<kAccBits> low = ap_int<kAccBits>(sum);
  if (kPt == 1) return low;
  ap_int<kAccBits> high = ap_int<kAccBits>(sum >> (kAccBits * (kPt - 1)));
  return tile == 0 ? low : ap_int<kAccBits>(high + (low < 0 ? 1 : 0));
}

// Order of the sums: for output channel: for tile.
inline void drain_lane(Stream<Sums>& sums, Stream<LaneSum>& lane_sums) {
  Sums token;
  ap_uint<4> channel = 0;
  ap_uint<1> tile = 0;
  bool ends_layer;
each_sum:
  do {
#pragma HLS pipeline II = 1
    if (channel == 0 && tile == 0) token = sums.read();
    bool last_tile = tile == kPt - 1;
    bool last = last_tile && channel == kPo - 1;
    LaneSum out;
    out.m = unpack_sum(token.sum[0], tile);
    out.last_group = token.last_group;
    out.ends_layer = last && token.ends_layer != 0;
    lane_sums.write(out);
    ends_layer = last && token.ends_layer != 0;
    if (last_tile) {
    next_channel:
      for (int p = 0; p < kPo - 1; p++) {
#pragma HLS unroll
        token.sum[p] = token.sum[p + 1];
      }
      channel = last ? ap_uint<4>(0) : ap_uint<4>(channel + 1);
    }
    tile = last_tile ? ap_uint<1>(0) : ap_uint<1>(1);
  } while (!ends_layer);
}

}  // namespace winnow
