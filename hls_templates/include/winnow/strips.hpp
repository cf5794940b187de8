// SPDX-License-Identifier: Apache-2.0
// The walk over the strips of a layer, the same in every process that needs it: left to right,
// then down. Edge strips are smaller. Running sums only; no multiplications.
#pragma once

#include "winnow/types.hpp"

namespace winnow {

struct Strips {
  Count rows, groups;              // of the map
  Count strip_rows, strip_groups;  // of a full strip
};

struct StripWalk {
  Count row, group;  // where the strip starts

  void start() {
#pragma HLS inline
    row = 0;
    group = 0;
  }
  bool is_last_row(const Strips& s) const {
#pragma HLS inline
    return row + s.strip_rows >= s.rows;
  }
  bool is_last_column(const Strips& s) const {
#pragma HLS inline
    return group + s.strip_groups >= s.groups;
  }
  bool is_last(const Strips& s) const {
#pragma HLS inline
    return is_last_row(s) && is_last_column(s);
  }
  Count num_rows(const Strips& s) const {
#pragma HLS inline
    return is_last_row(s) ? Count(s.rows - row) : s.strip_rows;
  }
  Count num_groups(const Strips& s) const {
#pragma HLS inline
    return is_last_column(s) ? Count(s.groups - group) : s.strip_groups;
  }
  void advance(const Strips& s) {
#pragma HLS inline
    if (is_last_column(s)) {
      group = 0;
      row += s.strip_rows;
    } else {
      group += s.strip_groups;
    }
  }
};

}  // namespace winnow
