// SPDX-License-Identifier: Apache-2.0
// The rounding of the integer contract: right shift, half to even, then clamp.
#pragma once

#include "winnow/types.hpp"

namespace winnow {

// x / 2^shift rounded half to even. Guard is the first bit shifted out, sticky the or of the rest.
template <int N, int S>
ap_int<N + 1> rne_shift(ap_int<N> x, ap_uint<S> shift) {
#pragma HLS inline
  ap_int<N + 1> with_guard = ap_int<N + 1>(ap_int<N + 1>(x) << 1) >> shift;
  ap_int<N> floor = ap_int<N>(with_guard >> 1);
  ap_uint<N> below_guard = ap_uint<N>((ap_uint<N>(1) << shift) >> 1) - 1;
  bool guard = (with_guard & 1) != 0;
  bool sticky = (ap_uint<N>(x) & below_guard) != 0;
  bool odd = (floor & 1) != 0;
  return ap_int<N + 1>(floor + ((guard && (sticky || odd)) ? 1 : 0));
}

// Without branches: they would make control wait for what is clamped.
template <int OUT, int N, int L>
ap_int<OUT> clamp(ap_int<N> x, ap_int<L> low, ap_int<L> high) {
#pragma HLS inline
  ap_int<OUT> below = choose<ap_int<OUT>>(x > high, ap_int<OUT>(high), ap_int<OUT>(x));
  return choose<ap_int<OUT>>(x < low, ap_int<OUT>(low), below);
}

}  // namespace winnow
