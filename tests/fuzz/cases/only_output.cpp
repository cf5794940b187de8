// SPDX-License-Identifier: Apache-2.0
// differs: XLS sent a token twice while the receive behind it waited (seed 6, design 33)
// in only_output_in: ap_uint<16> = :16
// out only_output_out: ap_uint<16> = :16
// call only_output_p0: only_output_in only_output_out
// calls: 2
// tokens only_output_in: f4be dcf4 f2a4 d95b e7a 1772 15ba 5c6e d5e3 2b49 bc68 cf18 ab73 da94 4ee2 4067 9b1f 3653 9b57 925 94c9 ae66 288b ffed 6e40 a372 64be cdbd b917 dc38 feac 8252 f30b 5f3f 8b4f ef8a 71e1 8087 44ab e6b5 932 defc 706 5d30 7703 ee8d 5186 e862 6148 6c71 e44c e252 8697 2a1b 8f7d 2d6c 3c72 3b08 61b 2d3d 533c 2c70 22fe 829a 829e 5c14 ffa9 8384 acaa 8f54 2e8d fec3 e4c1 7215 cbf8 6a27 bc01 867e e816 e892 c34c 5d3f ca2c 97ee 5a91 5ca4 fb21 dbe5 f63f 721d 2943 f476 c106 665d b714 bd14 761e a7a8 87c5 3ff9 7d71 4773 ecc1 7f81 8037 83f0 d4de cbd4 5a9a a964 e202 7466 e652 e736 7604 59cc 9155 b9d3 eb9a 8ebd b949 74e0 7c92 a8ac 38c8 f0ca 531d d08f b317 d5c4 2a83 e06f e86e 9dc8 44a4 c5e2 e950 7ad1 4f3f 4da4 f515 cc9c b4c9 d4c0 8116 8feb 848b 81e2 a6c3 9da5 9683 681b 4fd5 bb1e 3533 7d28 830b 5dd9 ef24 af29 9f8e e1cf 134b c8c6 d205 5769 b9d7 227 e85b d0a7 30ff ff3f beaa 1b2d f0a 930c a725 c85 45e9 9779 3a03 aeb6 e020 ea74 1b34 c11e

void only_output_p0(hls::stream<ap_uint<16> >& only_output_in, hls::stream<ap_uint<16> >& only_output_out) {
  only_output_in.read();
  for (int i = 0; i < 30; i++) {
#pragma HLS pipeline II = 1
    only_output_out.write(ap_uint<16>(i));
    only_output_in.read();
  }
}
