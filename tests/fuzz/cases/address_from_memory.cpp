// SPDX-License-Identifier: Apache-2.0
// once refused: the next address is the word read now
// in address_from_memory_in: ap_uint<16> = :16
// out address_from_memory_out: ap_uint<16> = :16
// call address_from_memory_p0: address_from_memory_in address_from_memory_out
// calls: 2
// tokens address_from_memory_in: 921e 8cde 3945 90e3 14ed f3c6

void address_from_memory_p0(hls::stream<ap_uint<16> >& address_from_memory_in, hls::stream<ap_uint<16> >& address_from_memory_out) {
  hls::ram<ap_uint<16>, 16> words;
  ap_uint<16> x = address_from_memory_in.read();
  for (int i = 0; i < 16; i++) {
#pragma HLS pipeline II = 1
    words.write(i, ap_uint<16>(x ^ (i * 7)));
  }
  for (int i = 0; i < 40; i++) {
#pragma HLS pipeline II = 1
    x = words.read(unsigned(ap_uint<4>(x)));
    address_from_memory_out.write(x);
  }
}
