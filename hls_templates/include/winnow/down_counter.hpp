// SPDX-License-Identifier: Apache-2.0
// Loop counters that never compare. A loop of n >= 1 steps counts n - 2, n - 3, ... -1: the sign of
// its counter tells the last step, one register bit, where a comparison with n would put a carry
// chain into every step. The host stores loop bounds as n - 2 (docs/program.md).
#pragma once

#include "winnow/types.hpp"

namespace winnow {

using Bound = ap_int<kBoundBits>;  // n - 2
using WideBound = ap_int<kBoundBits + 1>;
using KeepBound = ap_int<kKeepBits>;
using ImageBound = ap_int<kStatusImagesBits + 1>;

template <class T>
struct DownCounter {
  T left;

  void start(T bound) {
#pragma HLS inline
    left = bound;
  }
  bool is_last() const {
#pragma HLS inline
    return left < 0;
  }
  void step() {
#pragma HLS inline
    left--;
  }
  // To the next step; after the last one to the first of another round.
  void cycle(T bound) {
#pragma HLS inline
    left = choose<T>(is_last(), bound, T(left - 1));
  }
};

// The same for loops whose next step decides about others in the same cycle: it knows one step
// ahead whether that is the last one.
template <class T>
struct Lookahead {
  bool last;  // the current step is the last one
  T after;    // negative: the next step is

  void start(T bound) {
#pragma HLS inline
    last = bound < 0;
    after = T(bound - 1);
  }
  void cycle(T bound) {
#pragma HLS inline
    bool restarts = last;
    last = restarts ? bound < 0 : after < 0;
    after = T(choose<T>(restarts, bound, after) - 1);
  }
};

// Whether a number of the descriptor is no loop bound: it stands for less than one step.
template <class T>
bool is_no_bound(T bound) {
#pragma HLS inline
  return bound < -1;
}

}  // namespace winnow
