// SPDX-License-Identifier: Apache-2.0
// What the numbers of a descriptor must keep to so that every process is sent exactly what it waits
// for, no address leaves its memory on the chip, and a layer ends. Whatever follows from other
// numbers is not in the descriptor or compared here.
//
// Products are formed while the rest of the descriptor arrives, one bit of a factor per word, so
// that they cost no cycle and no multiplier: what they need is in the first kEarlyWords words.
#pragma once

#include "program.hpp"
#include "winnow/down_counter.hpp"

namespace winnow {

using Size = ap_uint<kBoundBits>;  // of a bound: its number of steps
using WideSize = ap_uint<kBoundBits + 4>;

constexpr int kSizeBits = kBoundBits;
constexpr int kVSizeBits = ceil_log2(kVWords + 1);
constexpr int kBeatsOfStep = kLanes / kLanesPerBeat;
constexpr int kBlockBits = ceil_log2(2 * kSubRow * kVWords * kBeatsOfStep + kBiasBeats + 1);

using VSize = ap_uint<kVSizeBits>;
using BlockBeats = ap_uint<kBlockBits>;

inline Size steps_of(Bound bound) {
#pragma HLS inline
  return Size(bound + 2);
}

// x * FACTOR as a sum of shifts.
template <int FACTOR, int BITS>
ap_uint<BITS> times(ap_uint<BITS> x) {
#pragma HLS inline
  ap_uint<BITS> sum = 0;
each_bit:
  for (int i = 0; i < 8; i++) {
#pragma HLS unroll
    if ((FACTOR >> i & 1) != 0) sum = ap_uint<BITS>(sum + (x << i));
  }
  return sum;
}

// a * b, a bit of `a` per step.
template <int A, int B>
struct Product {
  ap_uint<A> a;
  ap_uint<A + B> b, sum;

  void run(bool starts, ap_uint<A> new_a, ap_uint<B> new_b) {
#pragma HLS inline
    ap_uint<A + B> next = choose<ap_uint<A + B>>((a & 1) != 0, ap_uint<A + B>(sum + b), sum);
    sum = choose<ap_uint<A + B>>(starts, 0, next);
    a = choose<ap_uint<A>>(starts, new_a, ap_uint<A>(a >> 1));
    b = choose<ap_uint<A + B>>(starts, ap_uint<A + B>(new_b), ap_uint<A + B>(b << 1));
  }
};

// Pixels or words that `groups` tile groups of a linear layer hold.
template <int LANES>
WideSize words_of(Bound groups) {
#pragma HLS inline
  return times<kPt * LANES, WideSize::width>(WideSize(VSize(steps_of(groups))));
}

// A strip of a Winograd layer is whole tile groups and a border; no row is longer than the line
// buffer, and all that is read lies within it.
inline bool is_no_winograd(const Layer& l) {
#pragma HLS inline
  constexpr int kTile = kM, kGroup = kM * kPt;
  bool rows = l.rows_full < 0 || l.rows_last < 0 || (l.rows_full & (kTile - 1)) != 0 ||
              (l.rows_last & (kTile - 1)) != 0 || l.rows_full > kTile * kVWords ||
              l.rows_full == 0 || l.rows_last == 0;
  bool columns = l.columns_full < 0 || l.columns_last < 0 || (l.columns_full & (kGroup - 1)) != 0 ||
                 (l.columns_last & (kGroup - 1)) != 0 || l.columns_full > kLinePixels - 2 ||
                 l.columns_full == 0 || l.columns_last == 0;
  bool reads = l.read_rows_first >= l.rows_full || l.read_rows_last >= l.rows_last ||
               l.read_words_first >= l.columns_full || l.read_words_last >= l.columns_last;
  return rows || columns || reads;
}

// The padding in front of a strip: of the first one, which may be the last too.
inline Bound border_size(ap_uint<3> padding, Bound strips, bool is_last) {
#pragma HLS inline
  return choose<Bound>(!is_last || strips < 0, Bound(padding), Bound(0));
}

// A strip that pixels are gathered from holds its border and all that is read.
inline bool is_no_gather(const Layer& l) {
#pragma HLS inline
  WideBound first_row = WideBound(l.read_rows_first) + border_size(l.pad_top, l.strips_down, false);
  WideBound last_row = WideBound(l.read_rows_last) + border_size(l.pad_top, l.strips_down, true);
  WideBound first = WideBound(l.read_words_first) + border_size(l.pad_left, l.strips_across, false);
  WideBound last = WideBound(l.read_words_last) + border_size(l.pad_left, l.strips_across, true);
  return l.op != kOpDirect || first_row > l.rows_full || last_row > l.rows_last ||
         first > l.columns_full || last > l.columns_last;
}

// A strip of a linear layer is one row of whole tile groups.
inline bool is_no_linear(const Layer& l) {
#pragma HLS inline
  bool dense = l.op == kOpDense;
  WideSize full = words_of<kLanes>(l.groups_full), last = words_of<kLanes>(l.groups_last_both);
  WideSize pixels = words_of<kLinearPixels>(l.groups_full);
  WideSize last_pixels = words_of<kLinearPixels>(l.groups_last_both);
  WideSize first_room = choose<WideSize>(dense, last, pixels);
  WideSize last_room = choose<WideSize>(dense, last, last_pixels);
  bool rows = l.rows_full != -1 || l.rows_last != -1 || l.strips_down != -1;
  bool columns = WideSize(l.columns_full + 2) != full || WideSize(l.columns_last + 2) != last ||
                 (dense && l.strips_across != -1);
  bool reads = steps_of(l.read_words_first) > first_room ||
               steps_of(l.read_words_middle) > first_room ||
               steps_of(l.read_words_last) > last_room;
  return rows || columns || reads;
}

class LayerCheck {
 public:
  // Before a descriptor; every step of it, `starts` in that where the early words are in place.
  void start() {
#pragma HLS inline
    fresh_ = 0;
  }
  void step(bool starts, const Layer& early) {
#pragma HLS inline
    beats_.run((fresh_ & 8) != 0, blocks_, block_beats_);
    v_.run((fresh_ & 1) != 0, groups_, sub_rows_);
    tiles_.run((fresh_ & 1) != 0, tile_rows_, tile_columns_);
    strips_.run((fresh_ & 1) != 0, down_, across_);
    planes_.run((fresh_ & 1) != 0, places_, plane_count_);
    is_bad_ = fewer_ || uneven_ || longer_ || winograd_ || linear_ || gathered_;

    block_beats_ =
        BlockBeats(low_ + kBiasBeats + (wide_ ? BlockBeats((low_ + 1) >> 1) : BlockBeats(0)));
    BlockBeats shared = BlockBeats((BlockBeats(steps_) + kLanesPerBeat - 1) / kLanesPerBeat);
    low_ = choose<BlockBeats>(direct_, shared, times<kBeatsOfStep, kBlockBits>(BlockBeats(steps_)));
    steps_ = multiply_keep();
    fresh_ = ap_uint<4>(fresh_ << 1) | ap_uint<4>(starts ? 1 : 0);
    if (starts) take(early);
  }
  // Whether the early words, or the products, or `layer` break a rule.
  bool is_bad(const Layer& layer, Length feature_words) const {
#pragma HLS inline
    bool late = has_no_bound(layer) || layer.v_limit > kMaxVLimit;
    // a block in parts: only one sum can wait for the next one
    bool is_cut = WideSize(part_) < WideSize(steps_) && groups_ != 1;
    bool product = beats_.sum != layer.strip_beats || v_.sum > kVWords || is_cut ||
                   (!linear_op_ && tiles_.sum != groups_) || strips_.sum > feature_words ||
                   planes_.sum != sub_rows_;
    return is_bad_ || late || product;
  }

 private:
  using Steps = ap_uint<kVSizeBits + 4>;

  ap_uint<4> fresh_;
  bool wide_, direct_, linear_op_;
  bool fewer_, uneven_, longer_, winograd_, linear_, gathered_, is_bad_;
  Size blocks_, down_, across_, part_;
  VSize sub_rows_;
  ap_uint<4> keep_;
  ap_uint<6> places_;  // of the kernel that a plane is read for, one if it is not gathered from
  VSize plane_count_;
  VSize groups_, tile_rows_, tile_columns_;
  Steps steps_;
  BlockBeats low_, block_beats_;
  Product<kSizeBits, kBlockBits> beats_;
  Product<kVSizeBits, kVSizeBits> v_;
  Product<kVSizeBits, kVSizeBits> tiles_;
  Product<kSizeBits, kSizeBits> strips_;
  Product<6, kVSizeBits> planes_;

  Steps multiply_keep() const {
#pragma HLS inline
    Steps sum = 0;
  each_bit:
    for (int i = 0; i < 4; i++) {
#pragma HLS unroll
      sum = Steps(sum + choose<Steps>(((keep_ >> i) & 1) != 0, Steps(Steps(sub_rows_) << i), 0));
    }
    return sum;
  }
  void take(const Layer& l) {
#pragma HLS inline
    wide_ = l.wide_weights != 0;
    direct_ = l.op == kOpDirect;
    linear_op_ = l.op != kOpWinograd;
    blocks_ = steps_of(l.blocks);
    down_ = steps_of(l.strips_down);
    across_ = steps_of(l.strips_across);
    sub_rows_ = VSize(steps_of(l.sub_rows));
    part_ = steps_of(l.part_steps);
    plane_count_ = VSize(steps_of(l.planes));
    ap_uint<6> rows = ap_uint<6>(l.kernel_rows + 2), places = 0;
  each_column:
    for (int i = 0; i < 7; i++) {
#pragma HLS unroll
      if (i < l.kernel_columns + 2) places = ap_uint<6>(places + rows);
    }
    places_ = choose<ap_uint<6>>(l.gathers != 0, places, 1);
    keep_ = ap_uint<4>(l.keep + 2);
    groups_ = VSize(steps_of(l.groups_full));
    tile_rows_ = VSize(ap_uint<kBoundBits>(l.rows_full) / kM);
    tile_columns_ = VSize(ap_uint<kBoundBits>(l.columns_full) / (kM * kPt));
    fewer_ = l.keep > kSubRow - 2 || l.sub_rows > kVWords - 2 || l.groups_full > kVWords - 2 ||
             l.part_steps > kWWords - 2 || l.planes > kVWords - 2 || l.kernel_rows > 5 ||
             l.kernel_columns > 5;
    constexpr int kMost = kOutTiles / kPt - 2, kMostDirect = kOutTiles / (kPt * kLinearTiles) - 2;
    uneven_ = WideSize(blocks_) != WideSize(steps_of(l.channel_groups) * kBlocksPerGroup) ||
              l.groups_full > kMost || (direct_ && l.groups_full > kMostDirect);
    longer_ = l.groups_last_column > l.groups_full || l.groups_last_row > l.groups_full ||
              l.groups_last_both > l.groups_full || l.rows_last > l.rows_full ||
              l.columns_last > l.columns_full || l.read_rows_first > l.rows_full ||
              l.read_rows_middle > l.rows_full || l.read_rows_last > l.rows_last ||
              l.read_words_middle > l.columns_full;
    winograd_ = !linear_op_ && is_no_winograd(l);
    linear_ = l.op != kOpWinograd && l.gathers == 0 && is_no_linear(l);
    gathered_ = l.gathers != 0 && is_no_gather(l);
  }
};

}  // namespace winnow
