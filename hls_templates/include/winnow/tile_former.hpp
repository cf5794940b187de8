// SPDX-License-Identifier: Apache-2.0
// form_tiles: turns the pixel stream into alpha x alpha patches of 8 channels. II = 1 per pixel of
// the padded strip.
//
// Winograd: a RAM of one word per column holds the alpha - 1 rows above the current pixel; a window
// of alpha columns slides over them and yields a patch every m columns and m rows. Pixels outside
// the map are zero.
// Linear layers fill a patch with kLanes consecutive words, column by column: word i goes to tap
// (i % alpha, i / alpha). A direct patch has kLinearPixels pixels, a dense one kLanes input
// words (with two tiles, the second patch of a dense layer is zero). They walk like a Winograd
// strip of a single row, in which the window moves once in alpha words. Words that gather_pixels
// sends come in whole patches and tell where patch, strip and layer end.
#pragma once

#include "program.hpp"
#include "winnow/stream.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

// The rows above the current one: one RAM word per column.
using LineWord = ap_uint<64 * (kAlpha - 1)>;

// Put `enters[r]` into the last column of every row that `takes[r]`, after all columns moved on if
// the window `moves`.
inline void update_window(Word (&window)[kLanes], const Word (&enters)[kAlpha],
                          const bool (&takes)[kAlpha], bool moves) {
#pragma HLS inline
update_rows:
  for (int r = 0; r < kAlpha; r++) {
#pragma HLS unroll
  move_columns:
    for (int k = 0; k < kAlpha - 1; k++) {
#pragma HLS unroll
      const int t = r * kAlpha + k;
      window[t] = choose<Word>(moves, window[t + 1], window[t]);
    }
    const int last = r * kAlpha + kAlpha - 1;
    window[last] = choose<Word>(takes[r], enters[r], window[last]);
  }
}

// Counts down to the row or column that ends a tile.
using Phase = ap_uint<6>;

// The pixels of one padded plane (strip x sub-row), in raster order.
struct PlaneWalk {
  DownCounter<Bound> rows;
  DownCounter<WideBound> columns;
  Inside y, x;
  Phase row_phase, column_phase;
  Count column;

  void start(const FormTilesConfig& c, const StripWalk& strip, bool last_sub_row) {
#pragma HLS inline
    rows.start(choose<Bound>(strip.in_last_row(), c.rows_last, c.rows_full));
    y.start(size_at(c.read_rows, strip.in_first_row, strip.in_last_row()),
            border_of(1, c.linear == 0 && strip.in_first_row));
    row_phase = Phase(c.linear != 0 ? 0 : kAlpha - 1);
    start_row(c, strip, last_sub_row);
  }
  void start_row(const FormTilesConfig& c, const StripWalk& strip, bool last_sub_row) {
#pragma HLS inline
    bool tail = strip.in_last_column() && (c.dense == 0 || last_sub_row);
    columns.start(choose<WideBound>(strip.in_last_column(), c.columns_last, c.columns_full));
    x.start(size_at(c.read_words, strip.in_first_column, tail),
            border_of(1, c.linear == 0 && strip.in_first_column));
    column_phase = Phase(c.linear != 0 ? kLanes - 1 : kAlpha - 1);
    column = 0;
  }
  // Words of a direct patch that no pixel fills.
  bool is_filler(const FormTilesConfig& c) const {
#pragma HLS inline
    return c.linear != 0 && c.dense == 0 && column_phase < kLanes - kLinearPixels;
  }
  bool is_inside(const FormTilesConfig& c) const {
#pragma HLS inline
    return y.is_inside() && x.is_inside() && !is_filler(c);
  }
  bool ends_tile() const {
#pragma HLS inline
    return row_phase == 0 && column_phase == 0;
  }
  bool is_last() const {
#pragma HLS inline
    return rows.is_last() && columns.is_last();
  }
  // To the next pixel, but not out of the plane.
  void advance(const FormTilesConfig& c, const StripWalk& strip, bool last_sub_row) {
#pragma HLS inline
    if (columns.is_last()) {
      rows.step();
      y.step();
      row_phase = row_phase == 0 ? Phase(kM - 1) : Phase(row_phase - 1);
      start_row(c, strip, last_sub_row);
    } else {
      if (!is_filler(c)) x.step();
      columns.step();
      Phase next = Phase(c.linear != 0 ? kLanes - 1 : kM - 1);
      column_phase = choose<Phase>(column_phase == 0, next, Phase(column_phase - 1));
      column++;
    }
  }
};

// The patch that the window holds.
inline Patch patch_of(const Word (&window)[kLanes], bool ends_strip, bool ends_layer) {
#pragma HLS inline
  Patch patch;
copy_window:
  for (int t = 0; t < kLanes; t++) {
#pragma HLS unroll
    patch.word[t] = window[t];
  }
  patch.ends_strip = ends_strip;
  patch.ends_layer = ends_layer;
  return patch;
}

inline void form_tiles(Stream<FormTilesConfig>& config, Stream<Word>& pixels,
                       Stream<Gathered>& gathered, Stream<Patch>& patches) {
  const FormTilesConfig c = config.read();
  const bool linear = c.linear != 0, gathers = c.gathers != 0;
  // A column is read and written again a padded row later, never sooner: see Ram.
  Ram<LineWord, kLinePixels> lines;
#pragma openhls dependence variable = lines type = inter false
  Word window[kLanes];
#pragma HLS array_partition variable = window type = complete
  StripWalk strip;
  strip.start(c.strips);
  Lookahead<Bound> sub_rows;
  sub_rows.start(c.sub_rows);
  PlaneWalk plane;
  plane.start(c, strip, sub_rows.last);
  ap_uint<3> fills = 0;  // linear: the row of the last column that the next word goes to
  // The window is handed over one step after it is complete, so that it comes from registers.
  bool complete = false, ends_strip = false, ends_layer = false;
  bool finished;
each_pixel:
  do {
#pragma HLS pipeline II = 1
    finished = ends_layer;
    const Patch patch = patch_of(window, ends_strip, ends_layer);
    const bool emits = complete;
    // The last patch of a strip does not wait for the next strip's first word.
    const bool pauses = gathers && complete && ends_strip;
    const bool takes_word = gathers && !finished && !pauses;
    Gathered token = {};
    Word pixel = 0;
    if (takes_word) {
      token = gathered.read();
      pixel = token.word;
    }
    if (!gathers && plane.is_inside(c) && !finished) pixel = pixels.read();
    LineWord line = 0;
    if (!linear) line = lines.read(unsigned(plane.column));
    Word above[kAlpha - 1], next[kAlpha - 1];
    unpack_word<64>(line, above);
    Word enters[kAlpha];
    bool takes[kAlpha];
  stack_rows:
    for (int r = 0; r < kAlpha; r++) {
#pragma HLS unroll
      Word stacked = pixel;
      if (r < kAlpha - 1) stacked = above[r % (kAlpha - 1)];
      if (r > 0) next[(r + kAlpha - 2) % (kAlpha - 1)] = stacked;
      enters[r] = choose<Word>(linear, pixel, stacked);
      takes[r] = !linear || fills == r;
    }
    if (!linear) lines.write(unsigned(plane.column), pack_word(next));
    update_window(window, enters, takes, !linear || fills == 0);
    if (emits) patches.write(patch);

    const bool ends_plane = plane.is_last();
    const bool ends_walk = ends_plane && sub_rows.last;
    complete = gathers ? takes_word && token.ends_patch != 0 : plane.ends_tile();
    ends_strip = gathers ? takes_word && token.ends_strip != 0 : ends_walk;
    ends_layer = gathers ? takes_word && token.ends_layer != 0 : ends_walk && strip.is_last();
    if (!pauses) fills = fills == kAlpha - 1 ? ap_uint<3>(0) : ap_uint<3>(fills + 1);
    if (ends_walk) strip.advance(c.strips);
    if (ends_plane) {
      sub_rows.cycle(c.sub_rows);
      plane.start(c, strip, sub_rows.last);
    } else {
      plane.advance(c, strip, sub_rows.last);
    }
  } while (!finished);
}

}  // namespace winnow
