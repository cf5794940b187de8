// SPDX-License-Identifier: Apache-2.0
// plan_rows: the bursts of a layer, one row of a strip's plane (8 channels) after the other:
//   for strip: for plane: for row
// One instance plans what read_features reads, one what write_features writes, one what
// read_shortcuts reads, if the layer adds something: else it is idle and plans a row of one word
// per plane that no one requests. They only count words then; all addresses are running sums of
// distances that the host computed. II = 1 per row.
// Every access of feature memory is planned here, so this is where none gets out of the words that
// the host allows: a row that does is skipped (read as zeros, not written) and told at the end.
//
// Memory holds features as [channels / 8][height][width][8] bytes. A strip reads its rows plus a
// border of one pixel towards its neighbours. Linear layers (direct, dense) have one row per
// strip and plane, a run of words.
#pragma once

#include "program.hpp"
#include "winnow/stream.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

// From a strip's first word in plane 0 to that of the next strip.
inline Address strip_distance(const PlanRowsConfig& c, const StripWalk& strip) {
#pragma HLS inline
  Address right = choose<Address>(strip.in_first_column, c.right_first, c.right);
  Address down = choose<Address>(strip.in_first_row, c.down_first, c.down);
  return choose<Address>(strip.in_last_column(), down, right);
}

// Whether no memory belongs to a row: pooling left nothing of it, or nothing is planned.
inline bool is_empty_row(const PlanRowsConfig& c, const StripWalk& strip) {
#pragma HLS inline
  return c.idle != 0 || (strip.in_last_row() && c.skip_last_row != 0) ||
         (strip.in_last_column() && c.skip_last_column != 0);
}

// Where averages are written, all rows of a plane have one place of one word.
inline void plan_rows(Stream<PlanRowsConfig>& config, Stream<Burst>& bursts, Stream<Row>& rows,
                      Stream<Flaw>& outside) {
  const PlanRowsConfig c = config.read();
  StripWalk strip;
  strip.start(c.strips);
  Lookahead<Bound> planes;
  planes.start(c.planes);
  DownCounter<Bound> rows_left;
  rows_left.start(size_at(c.rows, true, strip.in_last_row()));
  const Address row_words = choose<Address>(c.average != 0, 0, c.row_words);
  const Address plane_words = choose<Address>(c.average != 0, 1, c.plane_words);
  const Address base = Address(c.base + c.image_base);
  Address strip_address = base, plane = base, row = base;
  // A row is handed over one step after it is planned, so that its end comes from a register.
  Burst burst = {};
  Row token = {};
  ap_uint<33> end = 0;
  bool planned = false, empty = false, went_outside = false, finished;
each_row:
  do {
#pragma HLS pipeline II = 1
    finished = planned && token.ends_layer != 0;
    const bool beyond = end > c.limit;
    if (beyond && !empty) went_outside = true;
    burst.skip = beyond;
    token.skip = empty || beyond;
    if (planned) {
      bursts.write(burst);
      rows.write(token);
    }
    planned = true;

    bool ends_plane = rows_left.is_last() || c.idle != 0;
    bool ends_strip = ends_plane && planes.last;
    bool tail = strip.in_last_column() && (c.dense == 0 || planes.last);
    Bound words = choose<Bound>(c.idle != 0, -1, size_at(c.words, strip.in_first_column, tail));
    burst.address = row;
    const ap_uint<kBoundBits> length =
        choose<ap_uint<kBoundBits>>(c.average != 0, 1, ap_uint<kBoundBits>(words + 2));
    burst.words = length;
    burst.ends_layer = ends_strip && strip.is_last();
    token.words = words;
    token.in_last_column = strip.in_last_column();
    token.gathers = c.gathers;
    token.ends_plane = ends_plane;
    token.ends_layer = ends_strip && strip.is_last();
    end = ap_uint<33>(row) + length;
    empty = is_empty_row(c, strip);

    if (ends_strip) {
      strip_address += strip_distance(c, strip);
      strip.advance(c.strips);
    }
    if (ends_plane) {
      plane = choose<Address>(ends_strip, strip_address, plane + plane_words);
      planes.cycle(c.planes);
      rows_left.start(size_at(c.rows, strip.in_first_row, strip.in_last_row()));
    } else {
      rows_left.step();
    }
    row = choose<Address>(ends_plane, plane, row + row_words);
  } while (!finished);
  outside.write(went_outside ? 1 : 0);
}

}  // namespace winnow
