// SPDX-License-Identifier: Apache-2.0
// Direct convolution: every lane has a pixel of the result, and needs the pixels under the kernel,
// one place of the kernel after the other.
//   store_plane    puts 8 channels of a strip on chip, with its border and zeros outside the map.
//                  II = 1 per pixel of the padded strip.
//   gather_pixels  reads them back: for place of the kernel: for pixel of the result, row by row.
//                  A patch is kLanes words, of which kLinearPixels are pixels; a tile group is
//                  filled up with copies of the strip's last pixel. II = 1 per word.
// While one plane is read, the next one is stored. Other layers pass both by.
//
// A max pool is the same nest inside out: for pixel of the result: for place of the kernel.
//   take_maxima    hands the greatest bytes under the kernel to read_shortcuts. II = 1 per word.
// Lanes get kPt patches a strip, early and of any content: their weights are zeros. Signed bytes
// are stored with the other sign, so that zeros, which lie around the map, are least, and bytes
// compare as unsigned ones.
#pragma once

#include "program.hpp"
#include "winnow/stream.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

// The sign bits of a word whose signed bytes are to be compared.
inline Word flipped_signs(bool maximum, bool is_signed) {
#pragma HLS inline
  return choose<Word>(maximum && is_signed, Word(0x8080808080808080ull), Word(0));
}

inline void store_plane(Stream<StorePlaneConfig>& config, Stream<Word>& pixels,
                        Bank<PlaneBlock>& planes) {
  const StorePlaneConfig c = config.read();
  if (c.gathers == 0) return;
  const Word flips = flipped_signs(c.maximum != 0, c.in_signed != 0);
  StripWalk strip;
  strip.start(c.strips);
  Lookahead<Bound> planes_left;
  planes_left.start(c.planes);
  bool ends_layer;
each_plane:
  do {
    WriteLock<PlaneBlock> block(planes);
    const WideBound columns_bound =
        choose<WideBound>(strip.in_last_column(), c.columns_last, c.columns_full);
    const Bound words = size_at(c.read_words, strip.in_first_column, strip.in_last_column());
    const Border left = border_of(c.pad_left, strip.in_first_column);
    DownCounter<Bound> rows;
    DownCounter<WideBound> columns;
    Inside y, x;
    rows.start(choose<Bound>(strip.in_last_row(), c.rows_last, c.rows_full));
    columns.start(columns_bound);
    y.start(size_at(c.read_rows, strip.in_first_row, strip.in_last_row()),
            border_of(c.pad_top, strip.in_first_row));
    x.start(words, left);
    PlaneAddress row = 0, address = 0;
    bool ends_plane;
  each_pixel:
    do {
#pragma HLS pipeline II = 1
      Word pixel = 0;
      if (y.is_inside() && x.is_inside()) pixel = pixels.read() ^ flips;
      block[address] = pixel;
      const bool ends_row = columns.is_last();
      ends_plane = ends_row && rows.is_last();
      ends_layer = ends_plane && planes_left.last && strip.is_last();
      if (ends_row) {
        row += c.pitch;
        rows.step();
        y.step();
        columns.start(columns_bound);
        x.start(words, left);
      } else {
        columns.step();
        x.step();
      }
      address = choose<PlaneAddress>(ends_row, row, PlaneAddress(address + 1));
      if (ends_plane) {
        if (planes_left.last) strip.advance(c.strips);
        planes_left.cycle(c.planes);
      }
    } while (!ends_plane);
  } while (!ends_layer);
}

// Which word of a patch is next.
struct PatchWalk {
  DownCounter<ap_int<7>> words;  // of the patch
  ap_uint<1> tile;               // of the tile group

  void start() {
#pragma HLS inline
    words.start(kLanes - 2);
    tile = 0;
  }
  bool is_pixel() const {
#pragma HLS inline
    return kLinearPixels == kLanes || words.left >= kLanes - 1 - kLinearPixels;
  }
  bool ends_patch() const {
#pragma HLS inline
    return words.is_last();
  }
  bool ends_group(bool one_tile) const {
#pragma HLS inline
    return ends_patch() && (one_tile || tile == kPt - 1);
  }
  void step() {
#pragma HLS inline
    if (ends_patch()) tile = kPt == 1 ? ap_uint<1>(0) : ap_uint<1>(tile + 1);  // one tile: any
    words.cycle(kLanes - 2);
  }
};

// Two nested loops over a plane on chip: how often, and plane words from one step to the next.
struct PlaneNest {
  Bound rows, columns;
  PlaneAddress row_step, column_step;
};

inline PlaneNest choose_nest(bool first, const PlaneNest& a, const PlaneNest& b) {
#pragma HLS inline
  PlaneNest nest;
  nest.rows = choose<Bound>(first, a.rows, b.rows);
  nest.columns = choose<Bound>(first, a.columns, b.columns);
  nest.row_step = choose<PlaneAddress>(first, a.row_step, b.row_step);
  nest.column_step = choose<PlaneAddress>(first, a.column_step, b.column_step);
  return nest;
}

inline void gather_pixels(Stream<GatherPixelsConfig>& config, Bank<PlaneBlock>& planes,
                          Stream<Gathered>& gathered, Stream<Gathered>& windows) {
  const GatherPixelsConfig c = config.read();
  if (c.gathers == 0) return;
  const bool maximum = c.maximum != 0;
  const PlaneNest kernel = {c.kernel_rows, c.kernel_columns, c.pitch, 1};
  StripWalk strip;
  strip.start(c.strips);
  Lookahead<Bound> planes_left;
  planes_left.start(c.planes);
  // Patches that the lanes still get of a max pool, all of them at its start: strips to come wait
  // for finish, which waits for the lanes.
  ap_uint<2> owed = kPt;
  bool ends_layer;
each_plane:
  do {
    ReadLock<PlaneBlock> block(planes);
    const PlaneNest pixels = {choose<Bound>(strip.in_last_row(), c.rows_last, c.rows_full),
                              choose<Bound>(strip.in_last_column(), c.words_last, c.words_full),
                              c.row_step, PlaneAddress(c.stride_columns)};
    const PlaneNest outer = choose_nest(maximum, pixels, kernel);
    const PlaneNest inner = choose_nest(maximum, kernel, pixels);
    DownCounter<Bound> rows, words, outer_rows, outer_words;
    rows.start(inner.rows);
    words.start(inner.columns);
    outer_rows.start(outer.rows);
    outer_words.start(outer.columns);
    PlaneAddress outer_row = 0, place = 0, row = 0, address = 0;
    PatchWalk walk;
    walk.start();
    bool sent_all = false;  // pixels of the strip at this place of the kernel
    bool ends_plane;
  each_word:
    do {
#pragma HLS pipeline II = 1
      Gathered token;
      token.word = block[address];
      const bool ends_row = words.is_last();
      const bool is_last = ends_row && rows.is_last();
      const bool takes = maximum || walk.is_pixel();
      const bool fills = maximum || walk.ends_group(c.one_tile != 0);
      const bool ends_place = fills && (sent_all || (takes && is_last));
      const bool ends_outer_row = ends_place && outer_words.is_last();
      ends_plane = ends_outer_row && outer_rows.is_last();
      const bool ends_strip = ends_plane && planes_left.last;
      ends_layer = ends_strip && strip.is_last();
      const bool last_patch = owed == 1;
      token.ends_patch = maximum || walk.ends_patch();
      token.ends_strip = maximum ? last_patch : ends_strip;
      token.ends_layer = maximum ? last_patch : ends_layer;
      if (!maximum || owed != 0) gathered.write(token);
      Gathered seen = token;
      seen.ends_patch = is_last;
      seen.ends_layer = ends_layer;
      if (maximum) windows.write(seen);

      const PlaneAddress next_outer_row = PlaneAddress(outer_row + outer.row_step);
      const PlaneAddress next_row = PlaneAddress(row + inner.row_step);
      const PlaneAddress next_place = choose<PlaneAddress>(ends_outer_row, next_outer_row,
                                                           PlaneAddress(place + outer.column_step));
      if (ends_place) {
        row = next_place;
        address = next_place;
        place = next_place;
        if (ends_outer_row) outer_row = next_outer_row;
        rows.start(inner.rows);
        words.start(inner.columns);
        outer_words.cycle(outer.columns);
        if (ends_outer_row) outer_rows.step();
      } else if (takes && !is_last) {
        address =
            choose<PlaneAddress>(ends_row, next_row, PlaneAddress(address + inner.column_step));
        if (ends_row) {
          row = next_row;
          rows.step();
        }
        words.cycle(inner.columns);
      }
      sent_all = !ends_place && (sent_all || (takes && is_last));
      walk.step();
      if (owed != 0) owed--;
      if (ends_plane) {
        if (planes_left.last) strip.advance(c.strips);
        planes_left.cycle(c.planes);
      }
    } while (!ends_plane);
  } while (!ends_layer);
}

inline void take_maxima(Stream<TakeMaximaConfig>& config, Stream<Gathered>& windows,
                        Stream<Word>& maxima) {
  const TakeMaximaConfig c = config.read();
  if (c.maximum == 0) return;
  const Word flips = flipped_signs(true, c.in_signed != 0);
  Word before = 0;
  bool ends_layer;
each_word:
  do {
#pragma HLS pipeline II = 1
    const Gathered token = windows.read();
    Word most = 0;
  each_channel:
    for (int k = 0; k < kSubRow; k++) {
#pragma HLS unroll
      const ap_uint<8> a = ap_uint<8>(token.word >> (8 * k)), b = ap_uint<8>(before >> (8 * k));
      most = most | (Word(choose<ap_uint<8>>(a > b, a, b)) << (8 * k));
    }
    if (token.ends_patch != 0) maxima.write(most ^ flips);
    before = choose<Word>(token.ends_patch != 0, Word(0), most);
    ends_layer = token.ends_layer != 0;
  } while (!ends_layer);
}

}  // namespace winnow
