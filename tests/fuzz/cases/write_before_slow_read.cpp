// SPDX-License-Identifier: Apache-2.0
// differs: the write of a later step came before a read whose address takes stages
// in write_before_slow_read_in: ap_uint<16> = :16
// out write_before_slow_read_out: ap_uint<16> = :16
// call write_before_slow_read_p0: write_before_slow_read_in write_before_slow_read_out
// calls: 2
// tokens write_before_slow_read_in: 2265 91b7 d8f1 cd61 c386 1027 414c 1e2f 7ed4 c2ce 7311 78e5 a6ce 612e c9e9 35bf 1807 7ce4 741 e4b0 d5f4 63ca 6ec9 9b81 c324 c464 8a b222 7204 442e b8b6 cd44 3a90 9755 f1fd 1a2b e6c3 5143 7d4 5b6 683 a648 8a9a 25b f06c e198 6196 afbd 3773 f813 6c0f b9d1 76f 8712 38c0 c381 7019 f06d 7eed 8d88 3bab 587f 3b1a ad45 3802 c2cd 75a8 f3c6 4a2f ed2f 580 6a8a d66b ea90 8e73 ec14 a46d 1999 2f97 a11d fe17 b940 dc25 4be0 1ef2 be3e 552b e544 b8b3 f927 b610 8034 efba f79b 6c0f 81f9 d47d e901 ab99 3099 4da9 48be 966b f934 e1ea 7fd6 d8a0 f0df 815a 64b2 96c8 da71 8d6 7af0 3e24 be65 cc22 677f 6a10 aa2c 2c4a 5dfb 8c7e e1fa b3fa c69d acab bcfb 5fec 1622 705f a9ec 8228 1ba1 c748 29e8 855c d707 64ac 5eda 7d5c bb96 792 7825 b21 4efb b410 d92a fbb2 9d64 97da 9403 64c2 a5ac 2b9c 2b28 8092 3a18 fb69 326 c541 3313 8a24 eb8a dc3b 8c5f 3b6f 678a 8386 5804 f3d4 d8f3 93ea 5a70 7589 e8e5 44ef a8c2 8c49 9be3 f505 bab9 176 6239 c89d db61 d20b f463 e2dc f03e bd91 8333 cf23 2116 84c8 c703 8fb5 349a 6d14 f320 e5e 7b29 deb8 5d5f 91eb 8ded 3328 f0e6 8135 69d4 7c24 d037 5b56 6a17 5898 67 89d9 8a44 9f9d c954 9cc9 54c5 7549 9990 729 cdf8 3ac7 a2a7 2d5d 8cfe 959f 2e47 dc6b 1773 cc66 8d10 cc0e d9ed d102 ee52 415a 84f d77c f18d ac51 1209

void write_before_slow_read_p0(hls::stream<ap_uint<16> >& write_before_slow_read_in, hls::stream<ap_uint<16> >& write_before_slow_read_out) {
  hls::ram<ap_uint<16>, 16> words;
  ap_uint<16> x = write_before_slow_read_in.read();
  for (int i = 0; i < 16; i++) {
#pragma HLS pipeline II = 1
    words.write(i, ap_uint<16>(x + i));
  }
  for (int i = 0; i < 40; i++) {
#pragma HLS pipeline II = 1
    x = write_before_slow_read_in.read();
    ap_uint<16> y = words.read(unsigned(ap_uint<4>((x * x * x) >> 8)));
    words.write(unsigned(ap_uint<4>(x)), x);
    write_before_slow_read_out.write(y);
  }
}
