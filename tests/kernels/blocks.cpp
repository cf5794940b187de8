// SPDX-License-Identifier: Apache-2.0
// A bank between two processes: `fill` writes blocks, `replay` reads each one backwards, twice.
// words: {last of all, last of block, byte}; replayed: {last of all, byte}
#include <ap_int.h>
#include <hls_stream.h>
#include <hls_streamofblocks.h>

typedef ap_uint<10> Block[16];

void fill(hls::stream<ap_uint<10>>& words, hls::stream_of_blocks<Block>& bank) {
  ap_uint<10> word;
each_block:
  do {
    hls::write_lock<Block> block(bank);
    ap_uint<4> address = 0;
  each_word:
    do {
#pragma HLS pipeline II = 1
      word = words.read();
      block[address] = word;
      address++;
    } while (((word >> 8) & 1) == 0);
  } while ((word >> 9) == 0);
}

// lengths: {last, words of the block - 1}
void replay(hls::stream<ap_uint<5>>& lengths, hls::stream_of_blocks<Block>& bank,
            hls::stream<ap_uint<10>>& replayed) {
  ap_uint<5> length;
each_block:
  do {
    hls::read_lock<Block> block(bank);
    length = lengths.read();
    ap_uint<4> address = ap_uint<4>(length);
    ap_uint<1> again = 0;
    bool done;
  each_word:
    do {
#pragma HLS pipeline II = 1
      replayed.write(block[address]);
      done = address == 0 && again == 1;
      if (address == 0) {
        address = ap_uint<4>(length);
        again = 1;
      } else {
        address--;
      }
    } while (!done);
  } while ((length >> 4) == 0);
}
