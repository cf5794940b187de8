// SPDX-License-Identifier: Apache-2.0
// differs: a read in the step of the write before it got the old word (seed 4, design 4)
// in read_after_write_p0_in0: ap_int<13> = :13
// out read_after_write_p0_out0: read_after_write_p0_Out0 = .m0[0]:1 .m0[1]:1 .m1:32 .m2[0]:16 .m2[1]:16 .m2[2]:16
// call read_after_write_p0: read_after_write_p0_in0 read_after_write_p0_out0
// calls: 1
// tokens read_after_write_p0_in0: 344 0 0 1515 0

struct read_after_write_p0_Out0 { ap_uint<1> m0[2]; ap_int<32> m1; short m2[3]; };
void read_after_write_p0(hls::stream<ap_int<13> >& read_after_write_p0_in0, hls::stream<read_after_write_p0_Out0 >& read_after_write_p0_out0) {
  ap_int<13> v0;
  v0 = 0;
  hls::ram<ap_int<13>, 15> ram0;
  hls::ram<ap_int<32>, 5> ram1;
  v0 = read_after_write_p0_in0.read();
  for (int i1 = 0; i1 < 15; i1++) {
#pragma HLS pipeline II = 1
    ram0.write(unsigned(ap_uint<3>(int(0))), ap_int<13>(ap_uint<9>(0)));
  }
  for (int i2 = 0; i2 < 5; i2++) {
#pragma HLS pipeline II = 1
    ram1.write(unsigned(ap_uint<2>(int(0))), ap_int<32>((bool(0) ? ap_int<64>(ap_uint<1>(0)) : ap_int<64>(i2))));
  }
  v0 = ram1.read(unsigned(ap_uint<2>(ap_int<5>(0))));
  {
    read_after_write_p0_Out0 token;
    token.m0[0] = ap_uint<1>(ap_uint<15>(0));
    token.m0[1] = ap_uint<1>(ap_uint<1>(0));
    token.m1 = ap_int<32>(ap_uint<1>(0));
    token.m2[0] = short(ap_int<17>(0));
    token.m2[1] = short((unsigned short)(37183));
    token.m2[2] = short(v0);
    read_after_write_p0_out0.write(token);
  }
}
