// SPDX-License-Identifier: Apache-2.0
// What travels between the processes. Control bits ride in the tokens, so that the processes in
// the middle of the engine need no configuration and no counters of their own:
//   ends_strip / ends_block   last token of a V bank half / of a block of po output channels
//   ends_half                 last token of a W bank half: of a block, or of a part of a deep one
//   last_group                the last tile group of a block, for all its channels and tiles
//   ends_layer                last token of all; the process returns after it
#pragma once

#include "winnow/down_counter.hpp"

namespace winnow {

// Whether a process met something wrong in a layer, told when it ends.
using Flaw = ap_uint<1>;

// A burst of memory: one row of a strip in one plane of 8 channels.
struct Burst {
  Address address;
  ap_uint<kBoundBits> words;
  ap_uint<1> skip;  // not in the memory that the host allows
  ap_uint<1> ends_layer;
};

// The same row for who counts its words.
struct Row {
  Bound words;
  ap_uint<1> in_last_column;  // of strips
  ap_uint<1> gathers;         // its words go on chip first: direct convolution
  ap_uint<1> skip;            // no memory: pooling left nothing of it, or the host allows none
  ap_uint<1> ends_plane;
  ap_uint<1> ends_layer;
};

// 8 channels of a padded strip on chip.
typedef Word PlaneBlock[kPlanePixels];

// A word of a patch of pixels that were gathered from there.
struct Gathered {
  Word word;
  ap_uint<1> ends_patch;
  ap_uint<1> ends_strip;
  ap_uint<1> ends_layer;
};

// An alpha x alpha input tile of 8 channels; word[row * alpha + column].
struct Patch {
  Word word[kLanes];
  ap_uint<1> ends_strip;
  ap_uint<1> ends_layer;
};

// V of kTransformChannels channels of one tile at one tap.
struct VSlice {
  ap_int<8> v[kTransformChannels];
  ap_uint<1> one_tile;
  ap_uint<1> ends_strip;
  ap_uint<1> ends_layer;
};

// What a multiplier takes of one channel: V of kPt tiles. With two it is {v1 - (v0 < 0), v0}: the
// borrow of the packed product is paid here, once. In a layer so deep that tile groups are one tile
// it is V of two sub-rows of that tile, the earlier one lower, as they are.
using Operand = ap_uint<8 * kPt>;

// The operands of 8 channels at one tap.
using VWord = ap_uint<8 * kPt * kSubRow>;
typedef VWord VBlock[kVWords];

// A non-zero weight, 8 bits, and above it its position in the sub-row; kPo of them.
using Entry = ap_uint<8 + kIndexBits>;
using WWord = ap_uint<(8 + kIndexBits) * kPo>;
typedef WWord WBlock[kWWords];

struct WToken {
  WWord word;
  ap_uint<1> ends_half;
  ap_uint<1> ends_layer;
};

// The biases of one block of output channels, on the accumulator's grid.
struct Biases {
  ap_int<32> value[kPo];
};

// One step of every lane: which operands to multiply.
struct Step {
  VAddress v_address;
  WAddress w_address;
  ap_uint<1> one_tile;
  ap_uint<1> upper;  // one tile: multiply the upper byte of the operands
  ap_uint<1> first;  // of a sum
  ap_uint<1> last;   // of a sum
  ap_uint<1> ends_half;
  ap_uint<1> ends_block;
  ap_uint<1> ends_strip;
  ap_uint<1> ends_layer;
};

// The finished sums of a lane for one tile group: kPt fields of kAccBits, the lowest one counting
// from kSumStart. Of a group of one tile it is the lowest one.
struct Sums {
  ap_uint<kSumBits> sum[kPo];
  ap_uint<1> one_tile;
  ap_uint<1> last_group;
  ap_uint<1> ends_layer;
};

// One lane's sum M for one output channel and tile.
struct LaneSum {
  ap_int<kAccBits> m;
  ap_uint<1> last_group;
  ap_uint<1> ends_layer;
};

// Accumulators Y of one output tile of one channel, row-major.
struct AccTile {
  Accumulator y[kTilePixels];
  ap_uint<1> last_group;
  ap_uint<1> ends_layer;
};

// A finished output tile of one channel: bytes, row-major; after pooling the first quarter of them.
using ByteTile = ap_uint<8 * kTilePixels>;
typedef ByteTile TileBlock[kOutTiles];

// What goes to memory: a burst to request, a word to write, both or neither.
struct ResultWord {
  Word word;
  Address address;
  ap_uint<kBoundBits> words;
  ap_uint<1> requests;
  ap_uint<1> writes;
  ap_uint<1> ends_burst;
  ap_uint<1> ends_layer;
};

// One pixel of 8 channels of every tile: what is added to a strip lies in a bank per place in a
// tile.
typedef Word WordBlock[kOutTiles];

}  // namespace winnow
