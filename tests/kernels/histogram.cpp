// SPDX-License-Identifier: Apache-2.0
// Counts values in a RAM: clear, count until the last value, read out. A value per cycle. A count
// is read the cycle before the previous one is written, so the previous one is kept beside.
#include <ap_int.h>
#include <hls_ram.h>
#include <hls_stream.h>

constexpr int kBins = 64;

// values: {last, bin}
void histogram(hls::stream<ap_uint<7>>& values, hls::stream<ap_uint<20>>& counts) {
  hls::ram<ap_uint<20>, kBins> bins;
clear:
  for (int i = 0; i < kBins; i++) {
#pragma HLS pipeline II = 1
    bins.write(i, ap_uint<20>(0));
  }
  ap_uint<6> previous_bin = 0;
  ap_uint<20> previous = 0;
  ap_uint<1> last;
count:
  do {
#pragma HLS pipeline II = 1
    ap_uint<7> token = values.read();
    last = ap_uint<1>(token >> 6);
    ap_uint<6> bin = ap_uint<6>(token);
    ap_uint<20> stored = bins.read(unsigned(bin));
    ap_uint<20> count = (bin == previous_bin ? previous : stored) + 1;
    bins.write(unsigned(bin), count);
    previous_bin = bin;
    previous = count;
  } while (!last);
read_out:
  for (int i = 0; i < kBins; i++) {
#pragma HLS pipeline II = 1
    ap_uint<20> stored = bins.read(i);
    counts.write(previous_bin == i ? previous : stored);
  }
}
