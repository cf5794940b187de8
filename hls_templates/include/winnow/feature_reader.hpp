// SPDX-License-Identifier: Apache-2.0
// read_features: fetches the pixels of every strip, one sub-row (8 channels) after the other.
// One burst per row that plan_rows planned, requested kReadAhead rows before its data is taken.
// Those that direct convolution gathers from go to store_plane. II = 1 per word.
#pragma once

#include "winnow/down_counter.hpp"
#include "winnow/stream.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

constexpr int kReadAhead = 4;

// Requests the next burst; tells whether it was the layer's last.
inline bool request_burst(Stream<Burst>& bursts, Port<Word> memory) {
#pragma HLS inline
  Burst burst = bursts.read();
  if (burst.skip == 0) memory.read_request(burst.address, burst.words);
  return burst.ends_layer != 0;
}

inline void read_features(Stream<Burst>& bursts, Stream<Row>& rows, Port<Word> memory,
                          Stream<Word>& pixels, Stream<Word>& plane_pixels) {
  bool requested_all = false;
  DownCounter<ap_int<4>> ahead;
  ahead.start(kReadAhead - 2);
  bool last_ahead;
request_ahead:
  do {
#pragma HLS pipeline II = 1
    if (!requested_all) requested_all = request_burst(bursts, memory);
    last_ahead = ahead.is_last();
    ahead.step();
  } while (!last_ahead);
  Row row = {};
  DownCounter<Bound> words;
  words.start(0);
  bool starts_row = true, ends_layer;
each_word:
  do {
#pragma HLS pipeline II = 1
    if (starts_row) {
      row = rows.read();  // before the request: what comes after it may be its answer
      words.start(row.words);
      if (!requested_all) requested_all = request_burst(bursts, memory);
    }
    Word pixel = 0;
    if (row.skip == 0) pixel = memory.read();
    if (row.gathers != 0) {
      plane_pixels.write(pixel);
    } else {
      pixels.write(pixel);
    }
    starts_row = words.is_last();
    ends_layer = starts_row && row.ends_layer != 0;
    words.step();
  } while (!ends_layer);
}

}  // namespace winnow
