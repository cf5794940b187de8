// SPDX-License-Identifier: Apache-2.0
// Where the pixels of a row lie in banks that hold a strip tile by tile. Tiles are edge x edge
// pixels; a linear layer has tiles of 1 x kTilePixels, which go on from row to row without
// next_row. Phases count down to the end of a tile.
#pragma once

#include "winnow/types.hpp"

namespace winnow {

struct TileEdges {
  ap_uint<5> across, down;

  static TileEdges of(bool linear, ap_uint<5> edge) {
#pragma HLS inline
    TileEdges e;
    e.across = choose<ap_uint<5>>(linear, kTilePixels, edge);
    e.down = choose<ap_uint<5>>(linear, 1, edge);
    return e;
  }
};

struct TilePlace {
  TileAddress row_tile, tile;  // first of the row, current one
  ap_uint<5> row_pixel, pixel;
  ap_uint<5> row_phase, phase;

  void start(const TileEdges& e) {
#pragma HLS inline
    row_tile = 0;
    row_pixel = 0;
    row_phase = ap_uint<5>(e.down - 1);
    start_row(e);
  }
  void start_row(const TileEdges& e) {
#pragma HLS inline
    tile = row_tile;
    pixel = row_pixel;
    phase = ap_uint<5>(e.across - 1);
  }
  void step(const TileEdges& e) {
#pragma HLS inline
    bool ends_tile = phase == 0;
    pixel = choose<ap_uint<5>>(ends_tile, row_pixel, ap_uint<5>(pixel + 1));
    phase = choose<ap_uint<5>>(ends_tile, ap_uint<5>(e.across - 1), ap_uint<5>(phase - 1));
    if (ends_tile) tile++;
  }
  // To the first pixel of the next row; `tiles` lie in a row of tiles.
  void next_row(const TileEdges& e, TileAddress tiles) {
#pragma HLS inline
    bool ends_tiles = row_phase == 0;
    row_pixel = choose<ap_uint<5>>(ends_tiles, 0, ap_uint<5>(row_pixel + e.across));
    row_phase = choose<ap_uint<5>>(ends_tiles, ap_uint<5>(e.down - 1), ap_uint<5>(row_phase - 1));
    if (ends_tiles) row_tile += tiles;
    start_row(e);
  }
};

}  // namespace winnow
