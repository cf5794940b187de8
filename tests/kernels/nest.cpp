// SPDX-License-Identifier: Apache-2.0
// Three nested loops that each run at least once: no cycle is lost between them.
// sizes: {inner, middle, outer}, 4 bits each
#include <ap_int.h>
#include <hls_stream.h>

void nest(hls::stream<ap_uint<12>>& sizes, hls::stream<ap_uint<12>>& steps) {
  const ap_uint<12> size = sizes.read();
  const ap_uint<4> outer = ap_uint<4>(size), middle = ap_uint<4>(size >> 4);
  const ap_uint<4> inner = ap_uint<4>(size >> 8);
  ap_uint<4> i = 0;
each_outer:
  do {
    ap_uint<4> j = 0;
  each_middle:
    do {
      ap_uint<4> k = 0;
    each_inner:
      do {
#pragma HLS pipeline II = 1
        steps.write((ap_uint<12>(k) << 8) | (ap_uint<12>(j) << 4) | i);
        k++;
      } while (k != inner);
      j++;
    } while (j != middle);
    i++;
  } while (i != outer);
}
