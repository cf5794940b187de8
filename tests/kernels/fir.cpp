// SPDX-License-Identifier: Apache-2.0
// An 8-tap symmetric filter; the last sample ends the call. A sample per cycle.
#include <ap_int.h>
#include <hls_stream.h>

constexpr int kTaps = 8;

struct Taps {
  ap_int<16> past[kTaps];
};

inline void shift_in(Taps& taps, ap_int<16> sample) {
#pragma HLS inline
shift:
  for (int i = kTaps - 1; i > 0; i--) {
#pragma HLS unroll
    taps.past[i] = taps.past[i - 1];
  }
  taps.past[0] = sample;
}

// samples: {last, sample}
void fir(hls::stream<ap_uint<17>>& samples, hls::stream<ap_int<40>>& filtered) {
  const int weight[kTaps] = {3, -17, 96, 1024, 1024, 96, -17, 3};
  Taps taps;
  for (int i = 0; i < kTaps; i++) taps.past[i] = 0;
  ap_uint<1> last;
each_sample:
  do {
#pragma HLS pipeline II = 1
    ap_uint<17> token = samples.read();
    last = ap_uint<1>(token >> 16);
    shift_in(taps, ap_int<16>(token));
    ap_int<40> sum = 0;
    for (int i = 0; i < kTaps; i++) {
#pragma HLS unroll
      sum += taps.past[i] * weight[i];
    }
    filtered.write(sum);
  } while (!last);
}
