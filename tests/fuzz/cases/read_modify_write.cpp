// SPDX-License-Identifier: Apache-2.0
// differs: the word written in the step before was not seen
// in read_modify_write_in: ap_uint<16> = :16
// out read_modify_write_out: ap_uint<16> = :16
// call read_modify_write_p0: read_modify_write_in read_modify_write_out
// calls: 2
// tokens read_modify_write_in: 154e de3a 445 73f7 3ba c10f c16e 47fc 3fe3 44c5 1c07 cc1b 9ff3 2f42 582c 4a50 11cb 2adf 28dd 4155 8702 f3b3 2b0b a81a 45dd a5f0 b62a 4b63 7467 b3df 526e 7f1a 7949 1d3b 60c 4fdf 62f5 57e5 6bc1 cbd3 3023 4227 1bd7 40e2 e65a baeb 8296 fa0b 3586 f72f 9b0b 6e80 d129 f9bd 554 39b2 492 65b6 257e 90b b805 f5bb 2904 7217 b461 819d ad9c 6d39 8b71 d50e 3879 fa1b f9c0 a17a cc3d b1ee 843f 736a 3923 861e a604 7db 6518 acc6 936a cdaa 523d a8ea a185 6d21 f0c bcc9 4c71 202c f7c8 364e e023 c25 4e6f 121b dbc7 1391 4f73 eacc f075 4c41 be6c 2880 6a8a 909f 409a 2161 22b 8f8b e0f3 d9bc 9b4 9730 d1c5 37b4 f652 e69b 91fd 75fa 2be8 d3f2 de26 deb0 f949 c7af b43a 9f7a 8245 994 60c2 334d 58d0 1959 34ac 92c9 ac95 e585 6ed5 9766 31b1 7e0a 1abb f01d aa7c 63db 4bcb 810d 7ff2 467 5349 9cb4 df22 66fe e651 4806 4a1 282e 336b db87 53e6 cfa6 fcaf 9037 c85f 2298 56ce 6de2 3689 443b aca9 18ae d673 6115 eea3 8c31 5806 ea19 e1e4 d673 afe6 88c9 7c08 c498 fc4a 8853 3c11 10b8 b9b8 a57 15ad 220d 2b71 2aa3 e936 89c8 3685 449c c255 550d 99a7 8181 d754 415a 5e3c 56be 571c 1d29 4a8d 3c35 de0f f1a9 9a9e c78f f44d b711 e323 7d21 22a6 9478 8d19 c52f 1ab1 521b a04 6816 12bc 6156 ddbd fdc1 c9c1 25b7 d418 2001 5745 1d5c 9d7c 9660 c82a ed19 60c7 139f

void read_modify_write_p0(hls::stream<ap_uint<16> >& read_modify_write_in, hls::stream<ap_uint<16> >& read_modify_write_out) {
  hls::ram<ap_uint<16>, 16> words;
  ap_uint<16> x = read_modify_write_in.read();
  for (int i = 0; i < 16; i++) {
#pragma HLS pipeline II = 1
    words.write(i, ap_uint<16>(x + i));
  }
  for (int i = 0; i < 40; i++) {
#pragma HLS pipeline II = 1
    x = read_modify_write_in.read();
    ap_uint<16> y = words.read(unsigned(ap_uint<1>(x)));
    words.write(unsigned(ap_uint<1>(x)), ap_uint<16>(y + 1));
    read_modify_write_out.write(y);
  }
}
