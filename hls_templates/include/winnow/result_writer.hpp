// SPDX-License-Identifier: Apache-2.0
// write_features: reads the 8 channel banks of a strip together and writes pixel rows as bursts,
// one word of 8 channels per cycle. II = 1. Pixels that stick out of the map are dropped. Returns
// when memory has acknowledged every write.
//
// The layout is that of read_features: [channels / 8][height][width][8] bytes. Linear layers write
// one run of words per strip.
#pragma once

#include "winnow/configure.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

constexpr int kWriteBehind = 8;  // bursts that may await their response

// The output of one strip and channel group: rows of pixels, in tiles of edge x edge (a linear
// layer has one row, and tiles of 1 x kTilePixels).
struct ResultRows {
  Count rows;               // left to write
  Address columns;          // valid pixels of a row
  Count tiles_per_row;      // tiles of a strip row
  ap_uint<5> across, down;  // pixels of a tile along and across the row

  void start(const ResultConfig& c, const StripWalk& strip) {
#pragma HLS inline
    if (c.linear != 0) {
      start_linear(c, strip);
    } else {
      start_tiles(c, strip);
    }
  }
  void start_linear(const ResultConfig& c, const StripWalk& strip) {
#pragma HLS inline
    rows = 1;
    columns = choose<Address>(strip.is_last(c.strips), c.tail_words, c.full_words);
    tiles_per_row = 0;
    across = kTilePixels;
    down = 1;
  }
  void start_tiles(const ResultConfig& c, const StripWalk& strip) {
#pragma HLS inline
    Count row = pixels(strip.row, c), column = first_column(c, strip);
    Count high = pixels(strip.num_rows(c.strips), c);
    Count wide = pixels(Count(strip.num_groups(c.strips) * Count(kPt)), c);
    Count rows_inside = row + high > c.height ? Count(c.height - row) : high;
    columns = column + wide > c.width ? Count(c.width - column) : wide;
    rows = columns == 0 ? Count(0) : rows_inside;
    tiles_per_row = strip.num_groups(c.strips) * Count(kPt);
    across = c.pool != 0 ? kM / 2 : kM;
    down = across;
  }
  static Count pixels(Count tiles, const ResultConfig& c) {
#pragma HLS inline
    return c.pool != 0 ? Count(tiles * Count(kM / 2)) : Count(tiles * Count(kM));
  }
  static Count first_column(const ResultConfig& c, const StripWalk& strip) {
#pragma HLS inline
    return c.linear != 0 ? Count(0) : pixels(Count(strip.group * Count(kPt)), c);
  }
};

// Pixel `index` of the tile, for all 8 channels.
inline Word gather_pixel(const ByteTile (&tiles)[kSubRow], unsigned index) {
#pragma HLS inline
  Word word = 0;
each_channel:
  for (int k = 0; k < kSubRow; k++) {
#pragma HLS unroll
    ap_uint<8> byte = Select<kTilePixels, ap_uint<8>>::of(tiles[k].pixel, index);
    word = word | (Word(byte) << (8 * k));
  }
  return word;
}

struct BurstWriter {
  ap_uint<4> unacknowledged;

  void start() {
#pragma HLS inline
    unacknowledged = 0;
  }
  void request(Port<Word>& memory, Address address, Address words) {
#pragma HLS inline
    if (unacknowledged == kWriteBehind) {
      memory.write_response();
    } else {
      unacknowledged++;
    }
    memory.write_request(address, words);
  }
  void finish(Port<Word>& memory) {
#pragma HLS inline
  each_response:
    while (unacknowledged != 0) {
      memory.write_response();
      unacknowledged--;
    }
  }
};

inline void write_features(Stream<ResultConfig>& config, Bank<TileBlock> (&banks)[kSubRow],
                           Port<Word> memory) {
  const ResultConfig c = config.read();
  BurstWriter bursts;
  bursts.start();
  StripWalk strip;
  strip.start();
  Address strip_base = c.base;
  bool last_strip;
each_strip:
  do {
    last_strip = strip.is_last(c.strips);
    Address plane = strip_base + ResultRows::first_column(c, strip);
    Count group = 0;
  each_channel_group:
    do {
      ReadLock<TileBlock> b0(banks[0]), b1(banks[1]), b2(banks[2]), b3(banks[3]);
      ReadLock<TileBlock> b4(banks[4]), b5(banks[5]), b6(banks[6]), b7(banks[7]);
      ResultRows out;
      out.start(c, strip);
      Address address = plane;
      TileAddress row_tile = 0;
      ap_uint<5> first = 0;  // pixel of a tile that its current row starts with
      ap_uint<5> y = 0;      // row within the tile
    each_row:
      while (out.rows != 0) {
        bursts.request(memory, address, out.columns);
        TileAddress tile = row_tile;
        ap_uint<5> x = 0;
        Address left = out.columns;
      each_pixel:
        do {
#pragma HLS pipeline II = 1
          ByteTile tiles[kSubRow] = {b0[tile], b1[tile], b2[tile], b3[tile],
                                     b4[tile], b5[tile], b6[tile], b7[tile]};
          memory.write(gather_pixel(tiles, unsigned(first + x)));
          bool ends_tile = x + 1 == out.across;
          x = ends_tile ? ap_uint<5>(0) : ap_uint<5>(x + 1);
          if (ends_tile) tile++;
          left--;
        } while (left != 0);
        address += c.width;
        bool ends_tile_row = y + 1 == out.down;
        y = ends_tile_row ? ap_uint<5>(0) : ap_uint<5>(y + 1);
        first = ends_tile_row ? ap_uint<5>(0) : ap_uint<5>(first + out.across);
        if (ends_tile_row) row_tile += TileAddress(out.tiles_per_row);
        out.rows--;
      }
      plane += c.plane_words;
      group++;
    } while (group != c.channel_groups);
    if (c.linear != 0 || strip.is_last_column(c.strips)) strip_base += c.strip_words;
    strip.advance(c.strips);
  } while (!last_strip);
  bursts.finish(memory);
}

}  // namespace winnow
