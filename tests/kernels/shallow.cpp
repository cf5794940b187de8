// SPDX-License-Identifier: Apache-2.0
// A whole design that hangs when a FIFO is too shallow: `split` sends `count` words on `first`,
// then as many on `second`; `join` takes one of both at once. `first` holds 4 words, one for the
// stage of `split` and one before its memory, so that with more each process waits for the other.
// Memory: count, then the words of `results`.
#include <ap_int.h>
#include <hls_burst_maxi.h>
#include <hls_stream.h>

typedef ap_uint<64> Word;

static void split(hls::burst_maxi<Word> source, hls::stream<ap_uint<8>>& counts,
                  hls::stream<ap_uint<8>>& first, hls::stream<ap_uint<8>>& second) {
  source.read_request(0, 1);
  const ap_uint<8> count = ap_uint<8>(source.read());
  counts.write(count);
  ap_uint<8> i = 0;
send_first:
  do {
#pragma HLS pipeline II = 1
    first.write(i);
    i++;
  } while (i != count);
  i = 0;
send_second:
  do {
#pragma HLS pipeline II = 1
    second.write(i);
    i++;
  } while (i != count);
}

static void join(hls::stream<ap_uint<8>>& counts, hls::stream<ap_uint<8>>& first,
                 hls::stream<ap_uint<8>>& second, hls::burst_maxi<Word> results) {
  const ap_uint<8> count = counts.read();
  results.write_request(1, count);
  ap_uint<8> i = 0;
take_both:
  do {
#pragma HLS pipeline II = 1
    Word low = first.read();
    Word high = second.read();
    results.write((high << 8) | low);
    i++;
  } while (i != count);
  results.write_response();
}

static void run(hls::burst_maxi<Word> source, hls::burst_maxi<Word> results) {
#pragma HLS dataflow
  hls::stream<ap_uint<8>> counts, first, second;
#pragma HLS stream variable = first depth = 4
  split(source, counts, first, second);
  join(counts, first, second, results);
}

extern "C" void shallow(hls::burst_maxi<Word> source, hls::burst_maxi<Word> results) {
#pragma HLS interface mode = m_axi port = source bundle = gmem0 offset = slave
#pragma HLS interface mode = m_axi port = results bundle = gmem1 offset = slave
#pragma HLS interface mode = s_axilite port = source bundle = control offset = 0x10
#pragma HLS interface mode = s_axilite port = results bundle = control offset = 0x1c
#pragma HLS interface mode = s_axilite port = return bundle = control
  run(source, results);
}
