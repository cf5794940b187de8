// SPDX-License-Identifier: Apache-2.0
// finish: bias, right shift half to even, clamp (an unsigned bound is the ReLU), sum with a map of
// memory, 2x2 max pool; one tile of one output channel per cycle. Takes what is added from the
// banks of read_shortcuts. Fills 8 output banks, one per channel of a group, and hands them over
// together when all channels of a strip are there.
#pragma once

#include "program.hpp"
#include "winnow/down_counter.hpp"
#include "winnow/requantize.hpp"
#include "winnow/stream.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

using Pixel = ap_int<9>;  // a signed or an unsigned byte
using TileBound = ap_int<6>;

using PixelSum = ap_int<9 + kMaxAddShift + 1>;

// The sum of a result and a byte of another map, on their finer grid, rounded to that of the
// output.
inline Pixel add_shortcut(Pixel own, ap_uint<8> byte, const FinishConfig& c) {
#pragma HLS inline
  Pixel other = choose<Pixel>(c.shortcut_signed != 0, Pixel(ap_int<8>(byte)), Pixel(byte));
  PixelSum sum = PixelSum((PixelSum(own) << c.own_shift) + (PixelSum(other) << c.shortcut_shift));
  return clamp<9>(rne_shift(sum, c.add_shift), c.add_low, c.add_high);
}

inline Pixel max_of_pair(Pixel a, Pixel b) {
#pragma HLS inline
  return choose<Pixel>(a > b, a, b);
}

// Requantize a tile, add bytes of another map to it, pool it. A raw tile carries the four bytes of
// y[0], lowest first.
inline ByteTile finish_tile(const AccTile& in, ap_int<32> bias,
                            const ap_uint<8> (&shortcut)[kTilePixels], const FinishConfig& c) {
#pragma HLS inline
  constexpr int kPooled = kM / 2;
  Pixel pixel[kTilePixels];
  Accumulator first = 0;
each_pixel:
  for (int i = 0; i < kTilePixels; i++) {
#pragma HLS unroll
    Accumulator y = Accumulator(in.y[i] + bias);
    if (i == 0) first = y;
    Pixel own = clamp<9>(rne_shift(y, c.shift), c.low, c.high);
    pixel[i] = choose<Pixel>(c.no_add != 0, own, add_shortcut(own, shortcut[i], c));
  }
  ap_uint<8> out[kTilePixels];
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
    out[i] = choose<ap_uint<8>>(c.raw != 0, raw, byte);
  }
  return pack_word(out);
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

// The tiles of one channel in a tile group, as a bound.
inline TileBound tiles_of_group(const FinishConfig& c) {
#pragma HLS inline
  const TileBound one = c.direct != 0 ? kLinearTiles - 2 : -1;
  const TileBound all = c.direct != 0 ? kPt * kLinearTiles - 2 : kPt - 2;
  return choose<TileBound>(c.one_tile != 0, one, all);
}

inline void finish(Stream<FinishConfig>& config, Stream<Biases>& biases, Stream<AccTile>& tiles,
                   Bank<WordBlock> (&shortcut_banks)[kTilePixels],
                   Bank<TileBlock> (&banks)[kSubRow]) {
  const FinishConfig c = config.read();
  const TileBound bound = tiles_of_group(c);
  Biases bias;
  bool starts_block = true;
  ap_uint<4> channel = 0;             // of the group of 8
  ap_uint<4> first = 0;               // channel of the block
  DownCounter<TileBound> tiles_left;  // of the channel
  tiles_left.start(bound);
  StorePlace place;
  place.start();
  bool ends_layer;
each_group:
  do {
    WriteLock<TileBlock> b0(banks[0]), b1(banks[1]), b2(banks[2]), b3(banks[3]);
    WriteLock<TileBlock> b4(banks[4]), b5(banks[5]), b6(banks[6]), b7(banks[7]);
    Locks<ReadLock<WordBlock>, WordBlock, kTilePixels> shortcuts(shortcut_banks);
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
      Word words[kTilePixels];
      shortcuts.read(place.tile, words);
      ap_uint<8> shortcut[kTilePixels];
    each_byte:
      for (int i = 0; i < kTilePixels; i++) {
#pragma HLS unroll
        shortcut[i] = ap_uint<8>(words[i] >> (ap_uint<6>(channel) << 3));
      }
      ByteTile done = finish_tile(in, channel_bias, shortcut, c);
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
