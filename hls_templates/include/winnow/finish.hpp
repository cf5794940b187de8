// SPDX-License-Identifier: Apache-2.0
// finish: bias, right shift half to even, clamp (an unsigned bound is the ReLU), 2x2 max pool; one
// tile of one output channel per cycle. Sends each tile to the store of its channel.
// store_tiles: fills the output bank of one of the 8 channels of a group, a strip at a time.
#pragma once

#include "winnow/configure.hpp"
#include "winnow/requantize.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

using Pixel = ap_int<9>;  // a signed or an unsigned byte

inline Pixel max_of_pair(Pixel a, Pixel b) {
#pragma HLS inline
  return choose<Pixel>(a > b, a, b);
}

// Requantize and pool a tile. A raw tile carries the four bytes of y[0], lowest first.
inline ByteTile finish_tile(const AccTile& in, ap_int<32> bias, const FinishConfig& c) {
#pragma HLS inline
  constexpr int kPooled = kM / 2;
  Pixel pixel[kTilePixels];
  Accumulator first = 0;
each_pixel:
  for (int i = 0; i < kTilePixels; i++) {
#pragma HLS unroll
    Accumulator y = Accumulator(in.y[i] + bias);
    if (i == 0) first = y;
    pixel[i] = clamp<9>(rne_shift(y, c.shift), c.low, c.high);
  }
  ByteTile out;
emit:
  for (int i = 0; i < kTilePixels; i++) {
#pragma HLS unroll
    ap_uint<8> plain = ap_uint<8>(pixel[i]);
    ap_uint<8> pooled = 0;
    if (i < kPooled * kPooled) {
      int top = (i / kPooled) * 2 * kM + (i % kPooled) * 2;
      pooled = ap_uint<8>(max_of_pair(max_of_pair(pixel[top], pixel[top + 1]),
                                      max_of_pair(pixel[top + kM], pixel[top + kM + 1])));
    }
    ap_uint<8> raw = i < 4 ? ap_uint<8>(first >> (8 * (i % 4))) : ap_uint<8>(0);
    ap_uint<8> byte = choose<ap_uint<8>>(c.pool != 0, pooled, plain);
    out.pixel[i] = choose<ap_uint<8>>(c.raw != 0, raw, byte);
  }
  return out;
}

inline void finish(Stream<FinishConfig>& config, Stream<Biases>& biases, Stream<AccTile>& tiles,
                   Stream<TileToken> (&channels)[kSubRow]) {
  const FinishConfig c = config.read();
  const ap_uint<4> tiles_per_channel = c.pointwise != 0 ? kPt * kLinearTiles : kPt;
  Biases bias;
  bool starts_block = true;
  ap_uint<4> block = 0;    // of the group of 8 channels
  ap_uint<4> channel = 0;  // of the block
  ap_uint<4> tile = 0;     // of the channel
  Address banks_left = c.num_banks;
  bool ends_layer;
each_tile:
  do {
#pragma HLS pipeline II = 1
    if (starts_block) bias = biases.read();
    AccTile in = tiles.read();
    ends_layer = in.ends_layer != 0;
    bool last_tile = tile + 1 == tiles_per_channel;
    bool last_channel = channel == kPo - 1;
    bool ends_bank = in.last_group != 0 && last_tile;
    bool ends_block = ends_bank && last_channel;
    bool ends_group = ends_block && block == kBlocksPerGroup - 1;
    TileToken token;
    token.ends_bank = ends_bank;
    token.ends_layer = ends_bank && banks_left == 1;
    token.tile = finish_tile(in, Select<kPo, ap_int<32>>::of(bias.value, unsigned(channel)), c);
  each_channel:
    for (int k = 0; k < kSubRow; k++) {
#pragma HLS unroll
      if (block == k / kPo && channel == k % kPo) {
        channels[k].write(token);
      }
    }
    if (ends_block) block = ends_group ? ap_uint<4>(0) : ap_uint<4>(block + 1);
    if (ends_group) banks_left--;
    tile = last_tile ? ap_uint<4>(0) : ap_uint<4>(tile + 1);
    if (last_tile) channel = last_channel ? ap_uint<4>(0) : ap_uint<4>(channel + 1);
    starts_block = ends_block;
  } while (!ends_layer);
}

inline void store_tiles(Stream<TileToken>& tiles, Bank<TileBlock>& bank) {
  TileToken token;
each_bank:
  do {
    WriteLock<TileBlock> block(bank);
    TileAddress address = 0;
  each_tile:
    do {
#pragma HLS pipeline II = 1
      token = tiles.read();
      block[address] = token.tile;
      address++;
    } while (token.ends_bank == 0);
  } while (token.ends_layer == 0);
}

}  // namespace winnow
