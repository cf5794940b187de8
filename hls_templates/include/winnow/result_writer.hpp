// SPDX-License-Identifier: Apache-2.0
// write_features: reads the 8 channel banks of a strip together and writes the rows that plan_rows
// planned as bursts, one word of 8 channels per cycle. II = 1. Pixels that stick out of the map are
// not planned. Returns when memory has acknowledged every write.
#pragma once

#include "program.hpp"
#include "winnow/stream.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

constexpr int kWriteBehind = 8;  // bursts that may await their response

// Where the pixels of a row lie in the banks. Tiles are edge x edge pixels; a linear layer has one
// row, and tiles of 1 x kTilePixels. Phases count down to the end of a tile.
struct TilePlace {
  TileAddress row_tile, tile;  // first of the row, current one
  ap_uint<5> row_pixel, pixel;
  ap_uint<5> row_phase, phase;

  static ap_uint<5> across(const WriteFeaturesConfig& c) {
#pragma HLS inline
    ap_uint<5> edge = choose<ap_uint<5>>(c.pool != 0, kM / 2, kM);
    return choose<ap_uint<5>>(c.linear != 0, kTilePixels, edge);
  }
  static ap_uint<5> down(const WriteFeaturesConfig& c) {
#pragma HLS inline
    return choose<ap_uint<5>>(c.linear != 0, 1, across(c));
  }
  void start(const WriteFeaturesConfig& c) {
#pragma HLS inline
    row_tile = 0;
    row_pixel = 0;
    row_phase = ap_uint<5>(down(c) - 1);
    start_row(c);
  }
  void start_row(const WriteFeaturesConfig& c) {
#pragma HLS inline
    tile = row_tile;
    pixel = row_pixel;
    phase = ap_uint<5>(across(c) - 1);
  }
  void step(const WriteFeaturesConfig& c) {
#pragma HLS inline
    bool ends_tile = phase == 0;
    pixel = choose<ap_uint<5>>(ends_tile, row_pixel, ap_uint<5>(pixel + 1));
    phase = choose<ap_uint<5>>(ends_tile, ap_uint<5>(across(c) - 1), ap_uint<5>(phase - 1));
    if (ends_tile) tile++;
  }
  void next_row(const WriteFeaturesConfig& c, TileAddress tiles) {
#pragma HLS inline
    bool ends_tiles = row_phase == 0;
    row_pixel = choose<ap_uint<5>>(ends_tiles, 0, ap_uint<5>(row_pixel + across(c)));
    row_phase = choose<ap_uint<5>>(ends_tiles, ap_uint<5>(down(c) - 1), ap_uint<5>(row_phase - 1));
    if (ends_tiles) row_tile += tiles;
    start_row(c);
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
  void request(Port<Word>& memory, const Burst& burst) {
#pragma HLS inline
    if (unacknowledged == kWriteBehind) {
      memory.write_response();
    } else {
      unacknowledged++;
    }
    memory.write_request(burst.address, burst.words);
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

inline void write_features(Stream<WriteFeaturesConfig>& config, Stream<Burst>& burst_plan,
                           Stream<Row>& rows, Bank<TileBlock> (&banks)[kSubRow],
                           Port<Word> memory) {
  const WriteFeaturesConfig c = config.read();
  BurstWriter bursts;
  bursts.start();
  bool ends_layer;
each_plane:
  do {
    ReadLock<TileBlock> b0(banks[0]), b1(banks[1]), b2(banks[2]), b3(banks[3]);
    ReadLock<TileBlock> b4(banks[4]), b5(banks[5]), b6(banks[6]), b7(banks[7]);
    TilePlace place;
    place.start(c);
    Row row = {};
    Countdown<Bound> words;
    words.start(0);
    bool starts_row = true, ends_plane;
  each_pixel:
    do {
#pragma HLS pipeline II = 1
      if (starts_row) {
        row = rows.read();
        words.start(row.words);
        Burst burst = burst_plan.read();
        if (row.skip == 0) bursts.request(memory, burst);
      }
      ByteTile tiles[kSubRow] = {b0[place.tile], b1[place.tile], b2[place.tile], b3[place.tile],
                                 b4[place.tile], b5[place.tile], b6[place.tile], b7[place.tile]};
      if (row.skip == 0) memory.write(gather_pixel(tiles, unsigned(place.pixel)));
      starts_row = words.is_last();
      words.step();
      ends_plane = starts_row && row.ends_plane != 0;
      ends_layer = ends_plane && row.ends_layer != 0;
      if (starts_row) {
        place.next_row(c, choose<TileAddress>(row.in_last_column != 0, c.tiles_last, c.tiles_full));
      } else {
        place.step(c);
      }
    } while (!ends_plane);
  } while (!ends_layer);
  bursts.finish(memory);
}

}  // namespace winnow
