// SPDX-License-Identifier: Apache-2.0
// Run-length coder: {last, byte} -> {last, length, byte}, runs of up to 255. The last byte may end
// two runs at once, so a control step of its own writes the second one.
#include <ap_int.h>
#include <hls_stream.h>

void run_length(hls::stream<ap_uint<9>>& bytes, hls::stream<ap_uint<17>>& runs) {
  ap_uint<8> value = 0, length = 0;
  bool last;
each_byte:
  do {
#pragma HLS pipeline II = 1
    ap_uint<9> token = bytes.read();
    last = (token >> 8) != 0;
    ap_uint<8> byte = ap_uint<8>(token);
    if (length != 0 && (byte != value || length == 255)) {
      runs.write((ap_uint<17>(length) << 8) | value);
      length = 0;
    }
    value = byte;
    length++;
  } while (!last);
  runs.write((ap_uint<17>(1) << 16) | (ap_uint<17>(length) << 8) | value);
}
