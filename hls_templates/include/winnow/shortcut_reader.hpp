// SPDX-License-Identifier: Apache-2.0
// read_shortcuts: fetches what is added to the results of a layer, for every strip and group of 8
// channels the pixels that write_features will write there. One word of 8 channels per cycle, each
// into the bank of its place in a tile; the banks of a group are handed over together. A burst per
// row, requested kReadAhead rows before its data is taken. In a layer that adds nothing it reads
// nothing and hands over banks of no content: a row of one word per group is planned for it. In a
// max pool it takes what take_maxima found instead of memory's words.
#pragma once

#include "program.hpp"
#include "winnow/feature_reader.hpp"
#include "winnow/stream.hpp"
#include "winnow/tile_place.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

// Takes the plan of the next burst and requests it if it `adds`; tells whether it was the last.
inline bool request_shortcut(bool adds, Stream<Burst>& bursts, Port<Word> memory) {
#pragma HLS inline
  Burst burst = bursts.read();
  if (adds && burst.skip == 0) memory.read_request(burst.address, burst.words);
  return burst.ends_layer != 0;
}

inline void read_shortcuts(Stream<ReadShortcutsConfig>& config, Stream<Burst>& bursts,
                           Stream<Row>& rows, Port<Word> memory, Stream<Word>& maxima,
                           Bank<WordBlock> (&banks)[kTilePixels]) {
  const ReadShortcutsConfig c = config.read();
  const bool maximum = c.maximum != 0, adds = c.no_add == 0 && !maximum;
  const TileEdges edges = TileEdges::of(c.linear != 0, kM);
  bool requested_all = false;
  DownCounter<ap_int<4>> ahead;
  ahead.start(kReadAhead - 2);
  bool last_ahead;
request_ahead:
  do {
#pragma HLS pipeline II = 1
    if (!requested_all) requested_all = request_shortcut(adds, bursts, memory);
    last_ahead = ahead.is_last();
    ahead.step();
  } while (!last_ahead);
  bool ends_layer;
each_plane:
  do {
    Locks<WriteLock<WordBlock>, WordBlock, kTilePixels> halves(banks);
    TilePlace place;
    place.start(edges);
    Row row = {};
    DownCounter<Bound> words;
    words.start(0);
    bool starts_row = true, ends_plane;
  each_pixel:
    do {
#pragma HLS pipeline II = 1
      if (starts_row) {
        row = rows.read();  // before the request: what comes after it may be its answer
        words.start(row.words);
        if (!requested_all) requested_all = request_shortcut(adds, bursts, memory);
      }
      Word word = 0;
      if (adds && row.skip == 0) word = memory.read();
      if (maximum) word = maxima.read();
      halves.write(place.tile, unsigned(place.pixel), word);
      starts_row = words.is_last();
      words.step();
      ends_plane = starts_row && row.ends_plane != 0;
      ends_layer = ends_plane && row.ends_layer != 0;
      if (starts_row && c.linear == 0) {
        place.next_row(edges,
                       choose<TileAddress>(row.in_last_column != 0, c.tiles_last, c.tiles_full));
      } else {
        place.step(edges);
      }
    } while (!ends_plane);
  } while (!ends_layer);
}

}  // namespace winnow
