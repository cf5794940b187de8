// SPDX-License-Identifier: Apache-2.0
// What the numbers of a descriptor must keep to so that every process is sent exactly what it waits
// for, no address leaves its memory on the chip, and a layer ends. Whatever follows from other
// numbers is not in the descriptor or compared here.
//
// Products are formed while the rest of the descriptor arrives, one bit of a factor per word, so
// that they cost no cycle and no multiplier: what they need is in the first kEarlyWords words. All
// else is compared when the last word has come, in kRuleSteps steps: sums, comparisons, one
// verdict. A step begins and ends at registers, so no rule has more than one sum or one comparison
// in it.
#pragma once

#include "program.hpp"
#include "winnow/down_counter.hpp"

namespace winnow {

using Size = ap_uint<kBoundBits>;  // of a bound: its number of steps
using WideSize = ap_uint<kBoundBits + 4>;

constexpr int kSizeBits = kBoundBits;
constexpr int kMostSubRows = kPt * kVWords;  // of a tile group: a word holds kPt of one tile
constexpr int kVSizeBits = ceil_log2(kMostSubRows + 1);
constexpr int kBeatsOfStep = kLanes / kLanesPerBeat;
constexpr int kBlockBits = ceil_log2(2 * kSubRow * kMostSubRows * kBeatsOfStep + kBiasBeats + 1);

// Rows and columns of a strip: of tiles, or of pixels where they are gathered from a plane.
constexpr int kPlaneSizeBits = ceil_log2(kPlanePixels + 1);
constexpr int kEdgeBits = kPlaneSizeBits > kVSizeBits ? kPlaneSizeBits : kVSizeBits;

using VSize = ap_uint<kVSizeBits>;
using Edge = ap_uint<kEdgeBits>;
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

// a * b, a bit of `a` per step; `product` is there A + 2 steps after its start.
template <int A, int B>
struct Product {
  ap_uint<A> a;
  ap_uint<A + B> b, sum, product;

  void run(bool starts, ap_uint<A> new_a, ap_uint<B> new_b) {
#pragma HLS inline
    product = sum;
    ap_uint<A + B> next = choose<ap_uint<A + B>>((a & 1) != 0, ap_uint<A + B>(sum + b), sum);
    sum = choose<ap_uint<A + B>>(starts, 0, next);
    a = choose<ap_uint<A>>(starts, new_a, ap_uint<A>(a >> 1));
    b = choose<ap_uint<A + B>>(starts, ap_uint<A + B>(new_b), ap_uint<A + B>(b << 1));
  }
};

// Pixels or words that `groups` tile groups of a linear layer hold; with one tile it is one group.
template <int LANES>
WideSize words_of(bool one_tile, Bound groups) {
#pragma HLS inline
  const WideSize all = times<kPt * LANES, WideSize::width>(WideSize(VSize(steps_of(groups))));
  return choose<WideSize>(one_tile, LANES, all);
}

// A strip of a Winograd layer is whole tile groups and a border; no row is longer than the line
// buffer, and all that is read lies within it.
inline bool is_no_winograd(const Layer& l) {
#pragma HLS inline
  constexpr int kTile = kM;
  const Bound uneven = choose<Bound>(l.one_tile != 0, kM - 1, kM * kPt - 1);
  bool rows = l.rows_full < 0 || l.rows_last < 0 || (l.rows_full & (kTile - 1)) != 0 ||
              (l.rows_last & (kTile - 1)) != 0 || l.rows_full > kTile * kVWords ||
              l.rows_full == 0 || l.rows_last == 0;
  bool columns = l.columns_full < 0 || l.columns_last < 0 || (l.columns_full & uneven) != 0 ||
                 (l.columns_last & uneven) != 0 || l.columns_full > kLinePixels - 2 ||
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

// Rows and columns of a strip that pixels are gathered from, which are read or padding, as bounds.
struct PaddedRead {
  WideBound first_row = 0, last_row = 0, first = 0, last = 0;

  void settle(const Layer& l) {
#pragma HLS inline
    first_row = WideBound(l.read_rows_first) + border_size(l.pad_top, l.strips_down, false);
    last_row = WideBound(l.read_rows_last) + border_size(l.pad_top, l.strips_down, true);
    first = WideBound(l.read_words_first) + border_size(l.pad_left, l.strips_across, false);
    last = WideBound(l.read_words_last) + border_size(l.pad_left, l.strips_across, true);
  }
  // Whether the strip does not hold them, or the layer gathers nothing.
  bool is_beyond(const Layer& l) const {
#pragma HLS inline
    return l.op != kOpDirect || first_row > l.rows_full || last_row > l.rows_last ||
           first > l.columns_full || last > l.columns_last || l.rows_full > kPlanePixels - 2 ||
           l.columns_full > kPlanePixels - 2;
  }
};

// Words that the first and the last strip of a linear layer hold, and of how many something is
// read.
struct LinearWords {
  WideSize first = 0, last = 0, first_room = 0, last_room = 0;

  void settle(const Layer& l) {
#pragma HLS inline
    const bool dense = l.op == kOpDense, one = l.one_tile != 0;
    first = words_of<kLanes>(one, l.groups_full);
    last = words_of<kLanes>(one, l.groups_last_both);
    const WideSize dense_room = words_of<kLanes>(one, l.groups_last_both);
    first_room = choose<WideSize>(dense, dense_room, words_of<kLinearPixels>(one, l.groups_full));
    last_room =
        choose<WideSize>(dense, dense_room, words_of<kLinearPixels>(one, l.groups_last_both));
  }
  // Whether a strip is not one row of whole tile groups.
  bool are_uneven(const Layer& l) const {
#pragma HLS inline
    bool rows = l.rows_full != -1 || l.rows_last != -1 || l.strips_down != -1;
    bool columns = WideSize(l.columns_full + 2) != first || WideSize(l.columns_last + 2) != last ||
                   (l.op == kOpDense && l.strips_across != -1);
    bool reads = steps_of(l.read_words_first) > first_room ||
                 steps_of(l.read_words_middle) > first_room ||
                 steps_of(l.read_words_last) > last_room;
    return rows || columns || reads;
  }
};

// What is no size of this engine.
inline bool is_too_large(const Layer& l) {
#pragma HLS inline
  constexpr int kMost = kOutTiles / kPt - 2, kMostDirect = kOutTiles / (kPt * kLinearTiles) - 2;
  const bool one_tile = l.one_tile != 0;
  const Bound most_sub_rows = choose<Bound>(one_tile, kMostSubRows - 2, kVWords - 2);
  return l.keep > kSubRow - 2 || l.sub_rows > most_sub_rows || l.groups_full > kVWords - 2 ||
         l.part_steps > kWWords - 2 || l.planes > most_sub_rows || l.kernel_rows > 5 ||
         l.kernel_columns > 5 || l.v_limit > kMaxVLimit || l.groups_full > kMost ||
         (l.op == kOpDirect && l.groups_full > kMostDirect) ||
         (one_tile && (kPt == 1 || l.groups_full != -1));
}

// Whether a strip in the last row or column, or a part of one, is larger than a full one.
inline bool is_longer(const Layer& l) {
#pragma HLS inline
  return l.groups_last_column > l.groups_full || l.groups_last_row > l.groups_full ||
         l.groups_last_both > l.groups_full || l.rows_last > l.rows_full ||
         l.columns_last > l.columns_full || l.read_rows_first > l.rows_full ||
         l.read_rows_middle > l.rows_full || l.read_rows_last > l.rows_last ||
         l.read_words_middle > l.columns_full;
}

// A max pool makes as many words as are added, and has a step for each of its kPt patches.
inline bool is_no_maximum(const Layer& l) {
#pragma HLS inline
  return l.gathers == 0 || l.no_add != 0 || l.one_tile != 0 || l.planes != l.channel_groups ||
         (l.kernel_rows < 0 && l.kernel_columns < 0);
}

constexpr int kRuleSteps = 3;
constexpr int kFactorSteps = 5;  // from the early words to the factors of the latest product

static_assert(kEarlyWords + kFactorSteps + kSizeBits + 1 < kLayerWords,
              "products are there with the last word");

class LayerCheck {
 public:
  bool is_bad = false;  // settled kRuleSteps steps after the last word

  // Before a descriptor; every step of it, `starts` in that where the early words are in place.
  void start() {
#pragma HLS inline
    fresh_ = 0;
  }
  void step(bool starts, const Layer& early) {
#pragma HLS inline
    beats_.run((fresh_ >> (kFactorSteps - 1)) != 0, blocks_, block_beats_);
    v_.run((fresh_ & 1) != 0, groups_, sub_rows_);
    edges_.run((fresh_ & 1) != 0, rows_, columns_);
    strips_.run((fresh_ & 1) != 0, down_, across_);
    planes_.run((fresh_ >> (kFactorSteps - 1)) != 0,
                choose<ap_uint<6>>(gathers_ != 0, ap_uint<6>(places_.sum), 1), plane_count_);
    places_.run((fresh_ & 1) != 0, kernel_rows_, kernel_columns_);

    block_beats_ = BlockBeats(low_beats_ + high_beats_);
    const BlockBeats steps = BlockBeats(steps_), own = times<kBeatsOfStep, kBlockBits>(steps);
    low_beats_ = choose<BlockBeats>(
        direct_ != 0, BlockBeats((steps + kLanesPerBeat * (kBiasBeats + 1) - 1) / kLanesPerBeat),
        BlockBeats(own + kBiasBeats));
    const BlockBeats high = choose<BlockBeats>(
        direct_ != 0, BlockBeats((steps + 2 * kLanesPerBeat - 1) / (2 * kLanesPerBeat)),
        BlockBeats((own + 1) >> 1));
    high_beats_ = choose<BlockBeats>(wide_ != 0, high, 0);
    steps_ = Steps(some_steps_ + more_steps_);
    some_steps_ = steps_of_keep(0);
    more_steps_ = steps_of_keep(2);
    fresh_ = ap_uint<kFactorSteps>(fresh_ << 1) | ap_uint<kFactorSteps>(starts ? 1 : 0);
    if (starts) take(early);
  }
  // After a descriptor, kRuleSteps times.
  void settle(const Layer& l, Length feature_words) {
#pragma HLS inline
    is_bad = no_bound_ || large_ || longer_ || uneven_ || winograd_ || linear_ || gathered_ ||
             cut_ || other_beats_ || other_v_ || other_tiles_ || other_planes_ || many_strips_ ||
             large_plane_ || maximum_;

    no_bound_ = has_no_bound(l);
    large_ = is_too_large(l);
    longer_ = is_longer(l);
    uneven_ = WideSize(blocks_) != channel_blocks_;
    winograd_ = l.op == kOpWinograd && is_no_winograd(l);
    linear_ = l.op != kOpWinograd && l.gathers == 0 && words_.are_uneven(l);
    gathered_ = l.gathers != 0 && padded_.is_beyond(l);
    // a block in parts: only one sum can wait for the next one
    cut_ = WideSize(steps_of(l.part_steps)) < WideSize(steps_) && groups_ != 1;
    other_beats_ = beats_.product != l.strip_beats;
    other_v_ = l.one_tile == 0 && v_.product > kVWords;
    other_tiles_ = l.op == kOpWinograd && edges_.product != groups_;
    large_plane_ = l.gathers != 0 && edges_.product > kPlanePixels;
    other_planes_ = l.maximum == 0 && planes_.product != sub_rows_;
    maximum_ = l.maximum != 0 && is_no_maximum(l);
    many_strips_ = strips_.product > feature_words;

    channel_blocks_ = WideSize(steps_of(l.channel_groups) * kBlocksPerGroup);
    words_.settle(l);
    padded_.settle(l);
  }

 private:
  using Steps = ap_uint<kVSizeBits + 4>;
  using Kernel = ap_uint<3>;

  ap_uint<kFactorSteps> fresh_;         // steps since the early words were taken, a bit for each
  ap_uint<1> wide_, direct_, gathers_;  // no bool: they are looked at before they have a value
  Size blocks_, down_, across_;
  VSize sub_rows_, plane_count_;
  ap_uint<4> keep_;
  Kernel kernel_rows_, kernel_columns_;
  VSize groups_;
  Edge rows_, columns_;
  Steps some_steps_, more_steps_, steps_;
  BlockBeats low_beats_, high_beats_, block_beats_;
  Product<kSizeBits, kBlockBits> beats_;
  Product<kVSizeBits, kVSizeBits> v_;
  Product<kEdgeBits, kEdgeBits> edges_;
  Product<kSizeBits, kSizeBits> strips_;
  Product<Kernel::width, Kernel::width> places_;
  Product<2 * Kernel::width, kVSizeBits> planes_;

  bool no_bound_ = false, large_ = false, longer_ = false, uneven_ = false, winograd_ = false;
  bool linear_ = false, gathered_ = false, cut_ = false, many_strips_ = false;
  bool large_plane_ = false, maximum_ = false;
  bool other_beats_ = false, other_v_ = false, other_tiles_ = false, other_planes_ = false;
  WideSize channel_blocks_ = 0;
  LinearWords words_;
  PaddedRead padded_;

  // Steps of two bits of `keep`.
  Steps steps_of_keep(int bit) const {
#pragma HLS inline
    Steps one = choose<Steps>(((keep_ >> bit) & 1) != 0, Steps(Steps(sub_rows_) << bit), 0);
    Steps two =
        choose<Steps>(((keep_ >> (bit + 1)) & 1) != 0, Steps(Steps(sub_rows_) << (bit + 1)), 0);
    return Steps(one + two);
  }
  void take(const Layer& l) {
#pragma HLS inline
    wide_ = l.wide_weights != 0;
    direct_ = l.op == kOpDirect;
    gathers_ = l.gathers != 0;
    blocks_ = steps_of(l.blocks);
    down_ = steps_of(l.strips_down);
    across_ = steps_of(l.strips_across);
    sub_rows_ = VSize(steps_of(l.sub_rows));
    plane_count_ = VSize(steps_of(l.planes));
    keep_ = ap_uint<4>(l.keep + 2);
    kernel_rows_ = Kernel(l.kernel_rows + 2);
    kernel_columns_ = Kernel(l.kernel_columns + 2);
    groups_ = VSize(steps_of(l.groups_full));
    const bool gathers = l.gathers != 0;
    const Edge tile_rows = Edge(ap_uint<kBoundBits>(l.rows_full) / kM);
    const Edge tile_columns =
        choose<Edge>(l.one_tile != 0, Edge(ap_uint<kBoundBits>(l.columns_full) / kM),
                     Edge(ap_uint<kBoundBits>(l.columns_full) / (kM * kPt)));
    rows_ = choose<Edge>(gathers, Edge(l.rows_full + 2), tile_rows);
    columns_ = choose<Edge>(gathers, Edge(l.columns_full + 2), tile_columns);
  }
};

}  // namespace winnow
