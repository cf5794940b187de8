// SPDX-License-Identifier: Apache-2.0
// Direct convolution: every lane has a pixel of the result, and needs the pixels under the kernel,
// one place of the kernel after the other.
//   store_plane    puts 8 channels of a strip on chip, with its border and zeros outside the map.
//                  II = 1 per pixel of the padded strip.
//   gather_pixels  reads them back: for place of the kernel: for pixel of the result, row by row.
//                  A patch is kLanes words, of which kLinearPixels are pixels; a tile group is
//                  filled up with copies of the strip's last pixel. II = 1 per word.
// While one plane is read, the next one is stored. Other layers pass both by.
#pragma once

#include "program.hpp"
#include "winnow/stream.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

inline void store_plane(Stream<StorePlaneConfig>& config, Stream<Word>& pixels,
                        Bank<PlaneBlock>& planes) {
  const StorePlaneConfig c = config.read();
  if (c.gathers == 0) return;
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
      if (y.is_inside() && x.is_inside()) pixel = pixels.read();
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
  bool ends_group() const {
#pragma HLS inline
    return ends_patch() && tile == kPt - 1;
  }
  void step() {
#pragma HLS inline
    if (ends_patch()) tile = kPt == 1 ? ap_uint<1>(0) : ap_uint<1>(tile + 1);
    words.cycle(kLanes - 2);
  }
};

inline void gather_pixels(Stream<GatherPixelsConfig>& config, Bank<PlaneBlock>& planes,
                          Stream<Gathered>& gathered) {
  const GatherPixelsConfig c = config.read();
  if (c.gathers == 0) return;
  StripWalk strip;
  strip.start(c.strips);
  Lookahead<Bound> planes_left;
  planes_left.start(c.planes);
  bool ends_layer;
each_plane:
  do {
    ReadLock<PlaneBlock> block(planes);
    const Bound rows_bound = choose<Bound>(strip.in_last_row(), c.rows_last, c.rows_full);
    const Bound words_bound = choose<Bound>(strip.in_last_column(), c.words_last, c.words_full);
    DownCounter<Bound> rows, words;
    DownCounter<KeepBound> kernel_rows, kernel_columns;
    rows.start(rows_bound);
    words.start(words_bound);
    kernel_rows.start(c.kernel_rows);
    kernel_columns.start(c.kernel_columns);
    PlaneAddress kernel_row = 0, place = 0, row = 0, address = 0;
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
      const bool takes = walk.is_pixel();
      const bool ends_place = walk.ends_group() && (sent_all || (takes && is_last));
      const bool ends_kernel_row = ends_place && kernel_columns.is_last();
      ends_plane = ends_kernel_row && kernel_rows.is_last();
      const bool ends_strip = ends_plane && planes_left.last;
      ends_layer = ends_strip && strip.is_last();
      token.ends_patch = walk.ends_patch();
      token.ends_strip = ends_strip;
      token.ends_layer = ends_layer;
      gathered.write(token);

      const PlaneAddress next_kernel_row = PlaneAddress(kernel_row + c.pitch);
      const PlaneAddress next_row = PlaneAddress(row + c.row_step);
      const PlaneAddress next_place =
          choose<PlaneAddress>(ends_kernel_row, next_kernel_row, PlaneAddress(place + 1));
      if (ends_place) {
        row = next_place;
        address = next_place;
        place = next_place;
        if (ends_kernel_row) kernel_row = next_kernel_row;
        rows.start(rows_bound);
        words.start(words_bound);
        kernel_columns.cycle(c.kernel_columns);
        if (ends_kernel_row) kernel_rows.step();
      } else if (takes && !is_last) {
        address = choose<PlaneAddress>(ends_row, next_row,
                                       PlaneAddress(address + PlaneAddress(c.stride_columns)));
        if (ends_row) {
          row = next_row;
          rows.step();
        }
        words.cycle(words_bound);
      }
      sent_all = !ends_place && (sent_all || (takes && is_last));
      walk.step();
      if (ends_plane) {
        if (planes_left.last) strip.advance(c.strips);
        planes_left.cycle(c.planes);
      }
    } while (!ends_plane);
  } while (!ends_layer);
}

}  // namespace winnow
