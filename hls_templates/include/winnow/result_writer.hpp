// SPDX-License-Identifier: Apache-2.0
// write_features: reads the 8 channel banks of a strip together, one word of 8 channels per cycle:
// the rows that plan_rows planned. II = 1. Pixels that stick out of the map are not planned. Or it
// hands on a single word for 8 channels: the average over the pixels of the map.
// write_bursts: writes those words as bursts, II = 1, and takes responses in between. Returns when
// memory has acknowledged every write.
#pragma once

#include "program.hpp"
#include "winnow/requantize.hpp"
#include "winnow/stream.hpp"
#include "winnow/tile_place.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

constexpr int kRowsAtOnce = 8;  // bursts that are written before a response is waited for

inline TileEdges tile_edges(const WriteFeaturesConfig& c) {
#pragma HLS inline
  return TileEdges::of(c.linear != 0, choose<ap_uint<5>>(c.pool != 0, kM / 2, kM));
}

// Pixel `index` of the tile, for all 8 channels.
inline Word gather_pixel(const ByteTile (&tiles)[kSubRow], unsigned index) {
#pragma HLS inline
  Word word = 0;
each_channel:
  for (int k = 0; k < kSubRow; k++) {
#pragma HLS unroll
    ap_uint<8> pixels[kTilePixels];
    unpack_word<8>(tiles[k], pixels);
    ap_uint<8> byte = Select<kTilePixels, ap_uint<8>>::of(pixels, index);
    word = word | (Word(byte) << (8 * k));
  }
  return word;
}

// The average over the pixels of a plane, for 8 channels: sums, and what is written of them.
struct PlaneAverage {
  using Sum = ap_int<9 + ceil_log2(kMaxAveragePixels)>;
  Sum sum[kSubRow];

  void start() {
#pragma HLS inline
    for (int k = 0; k < kSubRow; k++) sum[k] = 0;
  }
  // Adds a pixel; returns the average so far. The last one of a plane starts the next.
  Word add(Word word, bool ends_plane, const WriteFeaturesConfig& c) {
#pragma HLS inline
    Word average = 0;
  each_channel:
    for (int k = 0; k < kSubRow; k++) {
#pragma HLS unroll
      ap_uint<8> byte = ap_uint<8>(word >> (8 * k));
      Sum pixel = choose<Sum>(c.average_signed != 0, Sum(ap_int<8>(byte)), Sum(byte));
      Sum total = Sum(sum[k] + pixel);
      ap_int<9> rounded =
          clamp<9>(rne_shift(total, c.average_shift), c.average_low, c.average_high);
      average = average | (Word(ap_uint<8>(rounded)) << (8 * k));
      sum[k] = choose<Sum>(ends_plane, Sum(0), total);
    }
    return average;
  }
};

inline void write_features(Stream<WriteFeaturesConfig>& config, Stream<Burst>& burst_plan,
                           Stream<Row>& rows, Bank<TileBlock> (&banks)[kSubRow],
                           Stream<ResultWord>& results) {
  const WriteFeaturesConfig c = config.read();
  const TileEdges edges = tile_edges(c);
  PlaneAverage average;
  average.start();
  const bool averages = c.average != 0;
  bool ends_layer;
  Row next = rows.read();  // taken a row ahead, so that all of a row comes from registers
each_plane:
  do {
    ReadLock<TileBlock> b0(banks[0]), b1(banks[1]), b2(banks[2]), b3(banks[3]);
    ReadLock<TileBlock> b4(banks[4]), b5(banks[5]), b6(banks[6]), b7(banks[7]);
    TilePlace place;
    place.start(edges);
    Row row = {};
    DownCounter<Bound> words;
    words.start(0);
    bool starts_row = true, ends_plane;
  each_pixel:
    do {
#pragma HLS pipeline II = 1
      Burst burst = {};
      if (starts_row) {
        row = next;
        words.start(row.words);
        if (row.ends_layer == 0) next = rows.read();
        burst = burst_plan.read();
      }
      const bool ends_map = row.ends_plane != 0 && row.in_last_column != 0;
      const bool is_written = row.skip == 0 && (!averages || ends_map);
      ResultWord token;
      token.requests = starts_row && is_written;
      starts_row = words.is_last();
      words.step();
      ends_plane = starts_row && row.ends_plane != 0;
      ends_layer = ends_plane && row.ends_layer != 0;
      ByteTile tiles[kSubRow] = {b0[place.tile], b1[place.tile], b2[place.tile], b3[place.tile],
                                 b4[place.tile], b5[place.tile], b6[place.tile], b7[place.tile]};
      const Word word = gather_pixel(tiles, unsigned(place.pixel));
      const Word mean = average.add(word, ends_plane && ends_map, c);
      const bool writes = is_written && (!averages || starts_row);
      token.word = choose<Word>(averages, mean, word);
      token.address = burst.address;
      token.words = burst.words;
      token.writes = writes;
      token.ends_burst = starts_row;
      token.ends_layer = ends_layer;
      results.write(token);  // always, so that no wait depends on what the row is
      if (starts_row && c.linear == 0) {
        place.next_row(edges,
                       choose<TileAddress>(row.in_last_column != 0, c.tiles_last, c.tiles_full));
      } else {
        place.step(edges);
      }
    } while (!ends_plane);
  } while (!ends_layer);
}

// The loop that writes asks for no response: Vitis HLS would let it wait in front of the words that
// the response is for (docs/vitis.md). Between two rounds of kRowsAtOnce bursts the responses of
// the round before are taken.
inline void write_bursts(Stream<ResultWord>& words, Port<Word> memory) {
  ap_uint<4> unacknowledged = 0;
  ResultWord token, next = words.read();  // taken a word ahead, so that all comes from registers
each_round:
  do {
    DownCounter<ap_int<4>> bursts;
    bursts.start(kRowsAtOnce - 2);
    bool ends_round;
  each_word:
    do {
#pragma HLS pipeline II = 1
      token = next;
      if (token.ends_layer == 0) next = words.read();
      if (token.requests != 0) {
        memory.write_request(token.address, token.words);
        unacknowledged++;
      }
      if (token.writes != 0) memory.write(token.word);
      ends_round = token.ends_layer != 0 || (token.ends_burst != 0 && bursts.is_last());
      if (token.ends_burst != 0) bursts.step();
    } while (!ends_round);
    bool waits;
  each_response:
    do {
#pragma HLS pipeline II = 1
      waits =
          choose<bool>(token.ends_layer != 0, unacknowledged != 0, unacknowledged >= kRowsAtOnce);
      if (waits) {
        memory.write_response();
        unacknowledged--;
      }
    } while (waits);
  } while (token.ends_layer == 0);
}

}  // namespace winnow
