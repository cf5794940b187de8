// SPDX-License-Identifier: Apache-2.0
// sequence: the loop nest of the whole engine, once for all lanes. II = 1, one step per cycle:
//   for strip: for block: for tile group: for sub-row: for kept weight
// V of (sub-row s, group g) lies at s * groups + g of the strip's V bank; W words of a block lie in
// the order of their use. Both addresses are running sums.
#pragma once

#include "winnow/configure.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

inline Count strip_groups(const SequenceConfig& c, const StripWalk& strip) {
#pragma HLS inline
  bool last_row = strip.is_last_row(c.strips), last_column = strip.is_last_column(c.strips);
  Count in_last_row = choose<Count>(last_column, c.groups_last_both, c.groups_last_row);
  Count in_other_row = choose<Count>(last_column, c.groups_last_column, c.groups_full);
  return choose<Count>(last_row, in_last_row, in_other_row);
}

inline void sequence(Stream<SequenceConfig>& config, Stream<Step> (&steps)[kLanes]) {
  const SequenceConfig c = config.read();
  StripWalk strip;
  strip.start();
  Count groups = strip_groups(c, strip);
  bool last_strip = strip.is_last(c.strips);
  Count block = 0, group = 0, sub_row = 0;
  ap_uint<4> kept = 0;
  Count v_address = 0, w_address = 0;
  bool ends_layer;
each_step:
  do {
#pragma HLS pipeline II = 1
    bool last_kept = kept + 1 == c.keep;
    bool last_sub_row = sub_row + 1 == c.sub_rows;
    bool ends_sum = last_kept && last_sub_row;
    bool ends_block = ends_sum && group + 1 == groups;
    bool ends_strip = ends_block && block + 1 == c.blocks;
    ends_layer = ends_strip && last_strip;
    Step step;
    step.v_address = VAddress(v_address);
    step.w_address = WAddress(w_address);
    step.first = kept == 0 && sub_row == 0;
    step.last = ends_sum;
    step.ends_block = ends_block;
    step.ends_strip = ends_strip;
    step.ends_layer = ends_layer;
  each_lane:
    for (int t = 0; t < kLanes; t++) {
#pragma HLS unroll
      steps[t].write(step);
    }
    kept = last_kept ? ap_uint<4>(0) : ap_uint<4>(kept + 1);
    w_address = ends_sum ? Count(0) : Count(w_address + 1);
    if (ends_sum) {
      group = ends_block ? Count(0) : Count(group + 1);
      v_address = group;
      sub_row = 0;
    } else if (last_kept) {
      v_address += groups;
      sub_row++;
    }
    if (ends_block) block = ends_strip ? Count(0) : Count(block + 1);
    if (ends_strip) {
      strip.advance(c.strips);
      groups = strip_groups(c, strip);
      last_strip = strip.is_last(c.strips);
    }
  } while (!ends_layer);
}

}  // namespace winnow
