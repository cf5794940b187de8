// SPDX-License-Identifier: Apache-2.0
// form_tiles: turns the pixel stream into alpha x alpha patches of 8 channels. II = 1 per pixel of
// the padded strip. A RAM of one word per column holds the alpha - 1 rows above the current pixel;
// a window of alpha columns slides over them and yields a patch every m columns and m rows.
//
// Linear layers fill a patch with kLanes consecutive words, column by column: word i goes to tap
// (i % alpha, i / alpha). A pointwise patch has kLinearPixels pixels, a dense one kLanes input
// words (with two tiles, the second patch of a dense layer is zero).
#pragma once

#include "winnow/configure.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

struct Column {
  Word row[kAlpha];
};

// The rows above the current one: one RAM word per column.
struct LineWord {
  Word row[kAlpha - 1];
};

inline void shift_window(Word (&window)[kLanes], const Column& column) {
#pragma HLS inline
shift_rows:
  for (int r = 0; r < kAlpha; r++) {
#pragma HLS unroll
  shift_columns:
    for (int k = 0; k < kAlpha - 1; k++) {
#pragma HLS unroll
      window[r * kAlpha + k] = window[r * kAlpha + k + 1];
    }
    window[r * kAlpha + kAlpha - 1] = column.row[r];
  }
}

inline void emit_patch(const Word (&window)[kLanes], bool ends_strip, bool ends_layer,
                       Stream<Patch>& patches) {
#pragma HLS inline
  Patch patch;
copy_window:
  for (int t = 0; t < kLanes; t++) {
#pragma HLS unroll
    patch.word[t] = window[t];
  }
  patch.ends_strip = ends_strip;
  patch.ends_layer = ends_layer;
  patches.write(patch);
}

// The pixels of one padded plane (strip x sub-row), in raster order.
struct PlaneWalk {
  Count row, column;                   // position in the padded plane
  Count rows, columns;                 // its size
  Count y, x;                          // position in the map, wraps below zero outside of it
  Count x_first;                       // x of the first column
  ap_uint<3> row_phase, column_phase;  // counts down to the next row / column that ends a tile

  void start(const FeatureConfig& c, const StripWalk& strip) {
#pragma HLS inline
    rows = strip.num_rows(c.strips) * Count(kM) + 2;
    columns = strip.num_groups(c.strips) * Count(kPt * kM) + 2;
    row = 0;
    column = 0;
    y = strip.row * Count(kM) - 1;
    x_first = strip.group * Count(kPt * kM) - 1;
    x = x_first;
    row_phase = kAlpha - 1;
    column_phase = kAlpha - 1;
  }
  bool is_inside(const FeatureConfig& c) const {
#pragma HLS inline
    return y < c.height && x < c.width;
  }
  bool ends_tile() const {
#pragma HLS inline
    return row_phase == 0 && column_phase == 0;
  }
  bool is_last() const {
#pragma HLS inline
    return row + 1 == rows && column + 1 == columns;
  }
  void advance() {
#pragma HLS inline
    if (column + 1 == columns) {
      column = 0;
      x = x_first;
      column_phase = kAlpha - 1;
      row_phase = row_phase == 0 ? ap_uint<3>(kM - 1) : ap_uint<3>(row_phase - 1);
      row++;
      y++;
    } else {
      column_phase = column_phase == 0 ? ap_uint<3>(kM - 1) : ap_uint<3>(column_phase - 1);
      column++;
      x++;
    }
  }
};

inline void form_winograd_tiles(const FeatureConfig& c, Stream<Word>& pixels,
                                Stream<Patch>& patches) {
#pragma HLS inline
  // A column is read and written again a padded row later, never sooner: see Ram.
  Ram<LineWord, kLinePixels> lines;
  Word window[kLanes];
#pragma HLS array_partition variable = window type = complete
  StripWalk strip;
  strip.start();
  Count sub_row = 0;
  PlaneWalk plane;
  plane.start(c, strip);
  bool ends_layer;
each_pixel:
  do {
#pragma HLS pipeline II = 1
    Word pixel = 0;
    if (plane.is_inside(c)) pixel = pixels.read();
    LineWord above = lines.read(unsigned(plane.column));
    Column column;
    LineWord next;
  stack_rows:
    for (int r = 0; r < kAlpha - 1; r++) {
#pragma HLS unroll
      column.row[r] = above.row[r];
      next.row[r] = r + 1 < kAlpha - 1 ? above.row[r + 1 < kAlpha - 1 ? r + 1 : 0] : pixel;
    }
    column.row[kAlpha - 1] = pixel;
    lines.write(unsigned(plane.column), next);
    shift_window(window, column);
    bool ends_plane = plane.is_last();
    bool ends_strip = ends_plane && sub_row + 1 == c.sub_rows;
    ends_layer = ends_strip && strip.is_last(c.strips);
    if (plane.ends_tile()) emit_patch(window, ends_strip, ends_layer, patches);
    plane.advance();
    if (ends_plane) {
      sub_row = ends_strip ? Count(0) : Count(sub_row + 1);
      if (ends_strip) strip.advance(c.strips);
      plane.start(c, strip);
    }
  } while (!ends_layer);
}

inline void form_linear_tiles(const FeatureConfig& c, Stream<Word>& words, Stream<Patch>& patches) {
#pragma HLS inline
  Word window[kLanes];
#pragma HLS array_partition variable = window type = complete
  Column column;
#pragma HLS array_partition variable = column.row type = complete
  StripWalk strip;
  strip.start();
  Count sub_row = 0, group = 0;
  ap_uint<1> tile = 0;
  ap_uint<6> index = 0;  // word of the patch
  ap_uint<3> row = 0;    // row of the window column that the word goes to
  Address taken = 0;     // words read of this strip and sub-row
  bool ends_layer;
each_word:
  do {
#pragma HLS pipeline II = 1
    bool last_sub_row = sub_row + 1 == c.sub_rows;
    bool tail = strip.is_last(c.strips) && (c.dense == 0 || last_sub_row);
    bool in_patch = c.dense != 0 ? tile == 0 : index < kLinearPixels;
    Word word = 0;
    if (in_patch && taken != choose<Address>(tail, c.tail_words, c.full_words)) {
      word = words.read();
      taken++;
    }
  shift_column:
    for (int r = 0; r < kAlpha - 1; r++) {
#pragma HLS unroll
      column.row[r] = column.row[r + 1];
    }
    column.row[kAlpha - 1] = word;
    bool ends_column = row == kAlpha - 1;
    if (ends_column) shift_window(window, column);
    row = ends_column ? ap_uint<3>(0) : ap_uint<3>(row + 1);

    bool ends_patch = index == kLanes - 1;
    bool ends_group = ends_patch && tile == kPt - 1;
    bool ends_plane = ends_group && group + 1 == strip.num_groups(c.strips);
    bool ends_strip = ends_plane && last_sub_row;
    ends_layer = ends_strip && strip.is_last(c.strips);
    if (ends_patch) emit_patch(window, ends_strip, ends_layer, patches);
    index = ends_patch ? ap_uint<6>(0) : ap_uint<6>(index + 1);
    if (ends_patch) tile = ends_group ? ap_uint<1>(0) : ap_uint<1>(1);
    if (ends_group) group = ends_plane ? Count(0) : Count(group + 1);
    if (ends_plane) {
      taken = 0;
      sub_row = last_sub_row ? Count(0) : Count(sub_row + 1);
    }
    if (ends_strip) strip.advance(c.strips);
  } while (!ends_layer);
}

inline void form_tiles(Stream<FeatureConfig>& config, Stream<Word>& pixels,
                       Stream<Patch>& patches) {
  const FeatureConfig c = config.read();
  if (c.linear != 0) {
    form_linear_tiles(c, pixels, patches);
  } else {
    form_winograd_tiles(c, pixels, patches);
  }
}

}  // namespace winnow
