// SPDX-License-Identifier: Apache-2.0
// read_features: fetches the pixels of every strip, one sub-row (8 channels) after the other.
// One burst per pixel row, requested kReadAhead rows before its data is taken. II = 1 per word.
//
// Memory holds features as [channels / 8][height][width][8] bytes. A strip needs the rows of its
// tiles plus a border of one pixel; what lies outside the map is not read (form_tiles pads it).
// Linear layers (pointwise, dense) read one run of words per strip and sub-row.
#pragma once

#include "winnow/configure.hpp"

namespace winnow {

constexpr int kReadAhead = 4;

// The pixel rows of a layer in reading order.
struct RowWalk {
  StripWalk strip;
  Count sub_row;
  Count y, y_end, x_begin, x_end;
  Address strip_base;  // of the strip's first tile row, plane 0
  Address plane;       // offset of the sub-row's plane
  Address row;         // address of pixel (y, 0)

  void start(const FeatureConfig& c) {
#pragma HLS inline
    strip.start();
    strip_base = c.base;
    start_plane(c, 0, 0);
    start_columns(c);
  }

  void start_columns(const FeatureConfig& c) {
#pragma HLS inline
    Count first = strip.group * Count(kPt * kM);
    Count end = first + strip.num_groups(c.strips) * Count(kPt * kM) + 1;
    x_begin = first == 0 ? Count(0) : Count(first - 1);
    x_end = choose<Count>(end > c.width, c.width, end);
  }

  void start_plane(const FeatureConfig& c, Count new_sub_row, Address new_plane) {
#pragma HLS inline
    Count first = strip.row * Count(kM);
    Count end = first + strip.num_rows(c.strips) * Count(kM) + 1;
    sub_row = new_sub_row;
    plane = new_plane;
    y = first == 0 ? Count(0) : Count(first - 1);
    y_end = choose<Count>(end > c.height, c.height, end);
    Address border = first == 0 ? Count(0) : c.width;
    row = strip_base + new_plane - border;
  }

  bool is_last_of_plane(const FeatureConfig& c) const {
#pragma HLS inline
    return c.linear != 0 || y + 1 == y_end;
  }
  bool is_last(const FeatureConfig& c) const {
#pragma HLS inline
    return strip.is_last(c.strips) && sub_row + 1 == c.sub_rows && is_last_of_plane(c);
  }
  Address words(const FeatureConfig& c) const {
#pragma HLS inline
    bool tail = strip.is_last(c.strips) && (c.dense == 0 || sub_row + 1 == c.sub_rows);
    Address linear_words = choose<Address>(tail, c.tail_words, c.full_words);
    return choose<Address>(c.linear != 0, linear_words, x_end - x_begin);
  }
  Address address(const FeatureConfig& c) const {
#pragma HLS inline
    return c.linear != 0 ? Address(strip_base + plane) : Address(row + x_begin);
  }

  void advance(const FeatureConfig& c) {
#pragma HLS inline
    if (!is_last_of_plane(c)) {
      y++;
      row += c.width;
    } else if (sub_row + 1 != c.sub_rows) {
      start_plane(c, sub_row + 1, plane + c.plane_words);
    } else {
      bool next_base = c.linear != 0 || strip.is_last_column(c.strips);
      if (next_base) strip_base += c.strip_words;
      strip.advance(c.strips);
      start_plane(c, 0, 0);
      start_columns(c);
    }
  }
};

inline void read_features(Stream<FeatureConfig>& config, Port<Word> memory, Stream<Word>& pixels) {
  const FeatureConfig c = config.read();
  RowWalk request, row;
  request.start(c);
  row.start(c);
  bool requested_all = false;
request_ahead:
  for (int i = 0; i < kReadAhead; i++) {
#pragma HLS pipeline II = 1
    if (!requested_all) {
      memory.read_request(request.address(c), request.words(c));
      requested_all = request.is_last(c);
      request.advance(c);
    }
  }
  bool last_row;
each_row:
  do {
    if (!requested_all) {
      memory.read_request(request.address(c), request.words(c));
      requested_all = request.is_last(c);
      request.advance(c);
    }
    Address words = row.words(c);
    last_row = row.is_last(c);
    row.advance(c);
  each_word:
    do {
#pragma HLS pipeline II = 1
      pixels.write(memory.read());
      words--;
    } while (words != 0);
  } while (!last_row);
}

}  // namespace winnow
