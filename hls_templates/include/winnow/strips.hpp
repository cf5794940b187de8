// SPDX-License-Identifier: Apache-2.0
// The walk over the strips of a layer, the same in every process that needs it: left to right,
// then down. What a strip is follows from its place alone: whether it is in the first or last row
// or column of strips. All sizes were computed by the host for these places.
#pragma once

#include "winnow/down_counter.hpp"

namespace winnow {

struct Strips {
  Bound down, across;  // strips in a column and in a row
};

struct StripWalk {
  Lookahead<Bound> down, across;
  bool in_first_row, in_first_column;

  void start(const Strips& s) {
#pragma HLS inline
    down.start(s.down);
    across.start(s.across);
    in_first_row = true;
    in_first_column = true;
  }
  bool in_last_row() const {
#pragma HLS inline
    return down.last;
  }
  bool in_last_column() const {
#pragma HLS inline
    return across.last;
  }
  bool is_last() const {
#pragma HLS inline
    return down.last && across.last;
  }
  void advance(const Strips& s) {
#pragma HLS inline
    in_first_column = across.last;
    if (across.last) {
      in_first_row = false;
      down.cycle(s.down);
    }
    across.cycle(s.across);
  }
};

// Of three sizes the one of a place. A place that is first and last is last.
struct Places {
  Bound first, middle, last;
};

// A function of its own: what travels in a stream has no methods (docs/vitis.md).
inline Bound size_at(const Places& p, bool is_first, bool is_last) {
#pragma HLS inline
  return choose<Bound>(is_last, p.last, choose<Bound>(is_first, p.first, p.middle));
}

// Steps of an axis that lie in front of the map, less one: negative when there are none.
using Border = ap_int<4>;

inline Border border_of(ap_uint<3> padding, bool is_first) {
#pragma HLS inline
  return choose<Border>(is_first, Border(Border(padding) - 1), Border(-1));
}

// Which steps of an axis lie in the map: all but the border in front of it, until what the strip
// reads is used up.
struct Inside {
  DownCounter<Bound> left;
  Border before;
  bool after;

  void start(Bound inside, Border border) {
#pragma HLS inline
    left.start(inside);
    before = border;
    after = false;
  }
  bool is_inside() const {
#pragma HLS inline
    return before < 0 && !after;
  }
  void step() {
#pragma HLS inline
    if (before < 0) {
      after = after || left.is_last();
      left.step();
    } else {
      before--;
    }
  }
};

}  // namespace winnow
