// SPDX-License-Identifier: Apache-2.0
// transform_output: Y = A^T (M << sum_shift) A for one output channel and tile per cycle.
// Direct layers hand the lanes' sums on as pixels, kTilePixels per cycle; a dense layer has one
// output per channel, y[0], the sum of all lanes. The shifts put all taps on the accumulator's
// grid; arithmetic is modulo 2^kYBits, which is exact because the scheduler has bounded the result.
#pragma once

#include "program.hpp"
#include "winnow/stream.hpp"
#include "winnow/tokens.hpp"
#include "winnow/transform.hpp"

namespace winnow {

// The lane that holds pixel i of a direct patch; form_tiles fills patches column by column.
constexpr int linear_lane(int i) {
  return (i % kAlpha) * kAlpha + i / kAlpha;
}

inline void transform_output(Stream<TransformOutputConfig>& config,
                             Stream<LaneSum> (&lane_sums)[kLanes], Stream<AccTile>& tiles) {
  const TransformOutputConfig c = config.read();
  Accumulator m[kLanes];
#pragma HLS array_partition variable = m type = complete
  LaneSum token;
  ap_uint<3> part = 0;  // tile of a direct patch
  bool ends_layer;
each_tile:
  do {
#pragma HLS pipeline II = 1
    if (part == 0) {
    each_lane:
      for (int t = 0; t < kLanes; t++) {
#pragma HLS unroll
        token = lane_sums[t].read();
        m[t] = Accumulator(Accumulator(token.m) << c.sum_shift[t]);
      }
    }
    Accumulator y[kTilePixels];
    const OutputTransform<kM> transform = {c.op == kOpDense};
    transform_tile<kAlpha, kM>(m, y, transform);
    AccTile tile;
  each_pixel:
    for (int i = 0; i < kTilePixels; i++) {
#pragma HLS unroll
      Accumulator linear[kLinearTiles];
      for (int u = 0; u < kLinearTiles; u++) linear[u] = m[linear_lane(u * kTilePixels + i)];
      Accumulator pixel = Select<kLinearTiles, Accumulator>::of(linear, unsigned(part));
      tile.y[i] = choose<Accumulator>(c.op == kOpDirect, pixel, y[i]);
    }
    bool last_part = c.op != kOpDirect || part == kLinearTiles - 1;
    tile.last_group = token.last_group;
    tile.ends_layer = last_part && token.ends_layer != 0;
    tiles.write(tile);
    ends_layer = last_part && token.ends_layer != 0;
    part = last_part ? ap_uint<3>(0) : ap_uint<3>(part + 1);
  } while (!ends_layer);
}

}  // namespace winnow
