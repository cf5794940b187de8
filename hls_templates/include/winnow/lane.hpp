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
// returns the last borrow. In a layer of one tile per group the low field takes either byte of an
// operand, and nobody reads the high one.
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
    } while (token.ends_half == 0);
  } while (token.ends_layer == 0);
}

constexpr int kProductSpacing = 17;

// Where sums begin: the low field counts from 2^(kAccBits - 1), so that it never becomes negative
// and takes no borrow from the upper one. drain_lane flips that bit back.
constexpr unsigned long long kSumStart = kPt == 1 ? 0 : 1ull << (kAccBits - 1);

// One multiplication: kPt products in fields of kAccBits, the upper one short of its borrow.
inline ap_uint<kSumBits> multiply(Operand v, bool upper, ap_int<8> w) {
#pragma HLS inline
  ap_int<8> high = ap_int<8>(v >> (8 * (kPt - 1)));
  ap_int<8> low = kPt == 1 ? high : choose<ap_int<8>>(upper, high, ap_int<8>(v));
  if (kPt == 1) return ap_uint<kSumBits>(ap_int<kSumBits>(ap_int<16>(low * w)));
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
        Operand operands[kSubRow];
        Entry entries[kPo];
        unpack_word<8 * kPt>(v_block[step.v_address], operands);
        unpack_word<8 + kIndexBits>(w_block[step.w_address], entries);
        Sums result;
      each_channel:
        for (int p = 0; p < kPo; p++) {
#pragma HLS unroll
          unsigned channel = unsigned(ap_uint<kIndexBits>(entries[p] >> 8));
          Operand operand = Select<kSubRow, Operand>::of(operands, channel);
          ap_uint<kSumBits> product = multiply(operand, step.upper != 0, ap_int<8>(entries[p]));
          ap_uint<kSumBits> before = step.first != 0 ? ap_uint<kSumBits>(kSumStart) : acc[p];
          acc[p] = before + product;
          result.sum[p] = acc[p];
        }
        result.one_tile = step.one_tile;
        result.last_group = step.ends_block;
        result.ends_layer = step.ends_layer;
        if (step.last != 0) sums.write(result);
      } while (step.ends_half == 0);
    } while (step.ends_strip == 0);
  } while (step.ends_layer == 0);
}

// The sum of one output channel and tile out of a packed one.
inline ap_int<kAccBits> unpack_sum(ap_uint<kSumBits> sum, int tile) {
#pragma HLS inline
  ap_uint<kSumBits> started = tile == 0 ? ap_uint<kSumBits>(sum ^ kSumStart) : sum;
  return ap_int<kAccBits>(started >> (kAccBits * tile));
}

// Order of the sums: for output channel: for tile. The first leaves as its token arrives, the
// others out of `held`: there is no multiplexer in front of `held`. Of one tile per group the sums
// of the others are left out.
inline void drain_lane(Stream<Sums>& sums, Stream<LaneSum>& lane_sums) {
  constexpr int kSums = kPo * kPt;
  using Position = ap_uint<kSums == 1 ? 1 : ceil_log2(kSums)>;
  Sums held;
  Position position = 0;
  bool one_tile, done;
each_sum:
  do {
#pragma HLS pipeline II = 1
    LaneSum out;
    if (position == 0) {
      const Sums token = sums.read();
      out.m = unpack_sum(token.sum[0], 0);
      out.last_group = token.last_group;
      one_tile = token.one_tile != 0;
      done = kPo == 1 && (kPt == 1 || one_tile) && token.ends_layer != 0;
      held = token;
    } else {
      ap_int<kAccBits> m[kSums];
      for (int i = 0; i < kSums; i++) m[i] = unpack_sum(held.sum[i / kPt], i % kPt);
      m[0] = m[kSums - 1];  // never selected
      out.m = Select<kSums, ap_int<kAccBits>>::of(m, unsigned(position));
      out.last_group = held.last_group;
      one_tile = held.one_tile != 0;
      const Position last = choose<Position>(one_tile, kSums - kPt, kSums - 1);
      done = position == last && held.ends_layer != 0;
    }
    out.ends_layer = done;
    lane_sums.write(out);
    // wraps: kSums is a power of two
    const Position next = Position(position + choose<Position>(one_tile, kPt, 1));
    position = kSums == 1 ? Position(0) : next;
  } while (!done);
}

}  // namespace winnow
