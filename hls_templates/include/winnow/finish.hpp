// SPDX-License-Identifier: Apache-2.0
// finish: bias, right shift half to even, clamp (an unsigned bound is the ReLU), 2x2 max pool; one
// tile of one output channel per cycle. Fills 8 output banks, one per channel of a group, and hands
// them over together when all channels of a strip are there.
#pragma once

#include "program.hpp"
#include "winnow/countdown.hpp"
#include "winnow/requantize.hpp"
#include "winnow/stream.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

using Pixel = ap_int<9>;  // a signed or an unsigned byte
using TileBound = ap_int<6>;

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

// Where the tiles of a strip go: channel by channel within a tile group, all channels of a block.
struct StorePlace {
  TileAddress group;  // first tile of the tile group
  TileAddress tile;

  void start() {
#pragma HLS inline
    group = 0;
    tile = 0;
  }
  void advance(bool last_tile, bool last_channel, bool ends_block) {
#pragma HLS inline
    TileAddress next = TileAddress(tile + 1);
    if (last_tile && last_channel) group = ends_block ? TileAddress(0) : next;
    tile = last_tile ? group : next;
  }
};

inline void finish(Stream<FinishConfig>& config, Stream<Biases>& biases, Stream<AccTile>& tiles,
                   Bank<TileBlock> (&banks)[kSubRow]) {
  const FinishConfig c = config.read();
  const TileBound bound = c.pointwise != 0 ? kPt * kLinearTiles - 2 : kPt - 2;
  Biases bias;
  bool starts_block = true;
  ap_uint<4> channel = 0;           // of the group of 8
  ap_uint<4> first = 0;             // channel of the block
  Countdown<TileBound> tiles_left;  // of the channel
  tiles_left.start(bound);
  StorePlace place;
  place.start();
  bool ends_layer;
each_group:
  do {
    WriteLock<TileBlock> b0(banks[0]), b1(banks[1]), b2(banks[2]), b3(banks[3]);
    WriteLock<TileBlock> b4(banks[4]), b5(banks[5]), b6(banks[6]), b7(banks[7]);
    bool ends_group;
  each_tile:
    do {
#pragma HLS pipeline II = 1
      if (starts_block) bias = biases.read();
      AccTile in = tiles.read();
      ends_layer = in.ends_layer != 0;
      bool last_tile = tiles_left.is_last();
      bool last_channel = (channel & (kPo - 1)) == kPo - 1;
      bool ends_block = in.last_group != 0 && last_tile && last_channel;
      ends_group = ends_block && channel == kSubRow - 1;
      ap_int<32> channel_bias = Select<kPo, ap_int<32>>::of(bias.value, unsigned(channel));
      ByteTile done = finish_tile(in, channel_bias, c);
      if (channel == 0) b0[place.tile] = done;
      if (channel == 1) b1[place.tile] = done;
      if (channel == 2) b2[place.tile] = done;
      if (channel == 3) b3[place.tile] = done;
      if (channel == 4) b4[place.tile] = done;
      if (channel == 5) b5[place.tile] = done;
      if (channel == 6) b6[place.tile] = done;
      if (channel == 7) b7[place.tile] = done;
      place.advance(last_tile, last_channel, ends_block);
      tiles_left.cycle(bound);
      if (last_tile) {
        ap_uint<4> next = ends_group ? ap_uint<4>(0) : ap_uint<4>(channel + 1);
        channel = last_channel && !ends_block ? first : next;
        if (ends_block) first = next;
      }
      starts_block = ends_block;
    } while (!ends_group);
  } while (!ends_layer);
}

}  // namespace winnow
