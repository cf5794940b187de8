// SPDX-License-Identifier: Apache-2.0
// One-dimensional Winograd transforms as functors, and their two-dimensional application.
// Shifts and adds only (x5 is (x << 2) + x), so that no DSP is spent outside the lanes.
// Lavin & Gray 2016; the matrices are those of winnow/winograd.py.
#pragma once

#include "winnow/types.hpp"

namespace winnow {

template <int M>
struct InputTransform;
template <int M>
struct OutputTransform;

// B^T d for F(2,3), or d where `linear`. The second operands vanish then, which costs no logic: a
// bit of an adder takes both operands and the condition.
template <>
struct InputTransform<2> {
  static constexpr bool kPassesLinear = true;
  bool linear;

  template <class In, class Out>
  void apply(const In (&d)[4], Out (&v)[4]) const {
#pragma HLS inline
    In upper = linear ? In(0) : d[1], lower = linear ? In(0) : d[2];
    Out difference = Out(d[1] - d[3]);
    v[0] = Out(d[0] - lower);
    v[1] = Out(d[1] + lower);
    v[2] = Out(d[2] - upper);
    v[3] = linear ? Out(d[3]) : difference;
  }
};

// B^T d for F(4,3).
template <>
struct InputTransform<4> {
  static constexpr bool kPassesLinear = false;
  bool linear;

  template <class In, class Out>
  void apply(const In (&d)[6], Out (&v)[6]) const {
#pragma HLS inline
    Out x[6];
    for (int i = 0; i < 6; i++) x[i] = Out(d[i]);
    Out five_2 = Out((x[2] << 2) + x[2]), five_3 = Out((x[3] << 2) + x[3]);
    Out even = Out(x[4] - (x[2] << 2)), odd = Out(x[3] - (x[1] << 2));
    Out half_even = Out(x[4] - x[2]), half_odd = Out((x[3] - x[1]) << 1);
    v[0] = Out((x[0] << 2) - five_2 + x[4]);
    v[1] = Out(even + odd);
    v[2] = Out(even - odd);
    v[3] = Out(half_even + half_odd);
    v[4] = Out(half_even - half_odd);
    v[5] = Out((x[1] << 2) - five_3 + x[5]);
  }
};

// A^T m for F(2,3). With `total`, y[0] is the sum of all m: twice, it adds all lanes.
template <>
struct OutputTransform<2> {
  bool total;

  template <class In, class Out>
  void apply(const In (&m)[4], Out (&y)[2]) const {
#pragma HLS inline
    Out rest = total ? Out(m[3]) : Out(0);
    y[0] = Out((m[0] + m[1]) + (m[2] + rest));
    y[1] = Out(m[1] - (m[2] + m[3]));
  }
};

// A^T m for F(4,3), with the same `total`.
template <>
struct OutputTransform<4> {
  bool total;

  template <class In, class Out>
  void apply(const In (&m)[6], Out (&y)[4]) const {
#pragma HLS inline
    Out rest = total ? Out(m[5]) : Out(0);
    Out sum_12 = Out(m[1] + m[2]), difference_12 = Out(m[1] - m[2]);
    Out sum_34 = Out(m[3] + m[4]), difference_34 = Out(m[3] - m[4]);
    y[0] = Out((m[0] + rest) + (sum_12 + sum_34));
    y[1] = Out(difference_12 + (difference_34 << 1));
    y[2] = Out(sum_12 + (sum_34 << 2));
    y[3] = Out(difference_12 + (difference_34 << 3) + m[5]);
  }
};

// out = T in T^T for an N_IN x N_IN tile and a 1-D transform T of N_IN inputs and N_OUT outputs;
// tiles are row-major. Columns first, then rows.
template <int N_IN, int N_OUT, class In, class Out, class Transform>
void transform_tile(const In (&in)[N_IN * N_IN], Out (&out)[N_OUT * N_OUT],
                    const Transform& transform) {
#pragma HLS inline
  Out half[N_OUT][N_IN];
each_column:
  for (int j = 0; j < N_IN; j++) {
#pragma HLS unroll
    In column[N_IN];
    Out transformed[N_OUT];
    for (int i = 0; i < N_IN; i++) column[i] = in[i * N_IN + j];
    transform.apply(column, transformed);
    for (int i = 0; i < N_OUT; i++) half[i][j] = transformed[i];
  }
each_row:
  for (int i = 0; i < N_OUT; i++) {
#pragma HLS unroll
    Out transformed[N_OUT];
    transform.apply(half[i], transformed);
    for (int j = 0; j < N_OUT; j++) out[i * N_OUT + j] = transformed[j];
  }
}

}  // namespace winnow
