// SPDX-License-Identifier: Apache-2.0
// sequence: the loop nest of the whole engine, once for all lanes. II = 1, one step per cycle:
//   for strip: for block: for tile group: for sub-row: for kept weight
// V of (sub-row s, group g) lies at s * groups + g of the strip's V bank; W words of a block lie in
// the order of their use. Both addresses are running sums. A block that is larger than half a W
// bank comes in parts of c.part_steps words; then there is one tile group, whose sum goes on. With
// c.one_tile a V word holds sub-rows 2s and 2s + 1 of a group of one tile; the last one is in its
// upper bytes in any case.
#pragma once

#include "program.hpp"
#include "winnow/stream.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

inline Bound strip_groups(const SequenceConfig& c, const StripWalk& strip) {
#pragma HLS inline
  bool last_row = strip.in_last_row(), last_column = strip.in_last_column();
  Bound in_last_row = choose<Bound>(last_column, c.groups_last_both, c.groups_last_row);
  Bound in_other_row = choose<Bound>(last_column, c.groups_last_column, c.groups_full);
  return choose<Bound>(last_row, in_last_row, in_other_row);
}

inline void sequence(Stream<SequenceConfig>& config, Stream<Step> (&steps)[kLanes]) {
  const SequenceConfig c = config.read();
  StripWalk strip;
  strip.start(c.strips);
  Bound bound = strip_groups(c, strip);
  DownCounter<Bound> blocks, groups, sub_rows;
  DownCounter<Bound> part;
  DownCounter<KeepBound> kept;
  part.start(c.part_steps);
  blocks.start(c.blocks);
  groups.start(bound);
  sub_rows.start(c.sub_rows);
  kept.start(c.keep);
  VAddress v_address = 0, group = 0, stride = VAddress(bound + 2);
  WAddress w_address = 0;
  const bool maximum = c.maximum != 0;  // all strips read the same half of V, times zero
  bool first = true, ends_layer;
  const bool one_tile = c.one_tile != 0;
  bool odd = false;  // sub-row
each_step:
  do {
#pragma HLS pipeline II = 1
    bool last_kept = kept.is_last();
    bool ends_sum = last_kept && sub_rows.is_last();
    bool ends_block = ends_sum && groups.is_last();
    bool ends_strip = ends_block && blocks.is_last();
    ends_layer = ends_strip && strip.is_last();
    bool ends_part = part.is_last() || ends_sum;
    Step step;
    step.v_address = v_address;
    step.w_address = w_address;
    step.one_tile = one_tile;
    step.upper = one_tile && (odd || sub_rows.is_last());
    step.first = first;
    step.last = ends_sum;
    step.ends_half = ends_block || (part.is_last() && !ends_sum);
    step.ends_block = ends_block;
    step.ends_strip = ends_layer || (ends_strip && !maximum);
    step.ends_layer = ends_layer;
  each_lane:
    for (int t = 0; t < kLanes; t++) {
#pragma HLS unroll
      steps[t].write(step);
    }
    first = ends_sum;
    w_address = choose<WAddress>(ends_part, 0, WAddress(w_address + 1));
    part.left = choose<Bound>(ends_part, c.part_steps, Bound(part.left - 1));
    if (ends_sum) {
      group = choose<VAddress>(ends_block, 0, VAddress(group + 1));
      v_address = group;
    } else if (last_kept && (odd || !one_tile)) {
      v_address += stride;
    }
    if (last_kept) odd = !odd && !ends_sum;
    if (ends_strip) {
      strip.advance(c.strips);
      bound = strip_groups(c, strip);
      stride = VAddress(bound + 2);
    }
    kept.cycle(c.keep);
    if (last_kept) sub_rows.cycle(c.sub_rows);
    if (ends_sum) groups.cycle(bound);
    if (ends_block) blocks.cycle(c.blocks);
  } while (!ends_layer);
}

}  // namespace winnow
