// SPDX-License-Identifier: Apache-2.0
// Hands each process what it needs of a layer's descriptor, as the first token of a channel of its
// own: the same mechanism as all other communication, in every back end.
#pragma once

#include "winnow/stream.hpp"
#include "winnow/strips.hpp"

namespace winnow {

struct FeatureConfig {  // read_features and form_tiles
  Strips strips;
  ap_uint<1> linear;  // pointwise or dense: no tiles, a run of words
  ap_uint<1> dense;
  Count sub_rows;
  Count height, width;
  Address base, plane_words, strip_words;
  Address full_words, tail_words;
};

struct TransformConfig {
  ap_uint<1> linear;
  ap_uint<1> in_signed;
  ap_uint<7> v_limit;
  ap_uint<4> v_shift[kLanes];
};

struct WeightConfig {  // read_weights and unpack_weights
  Address base;
  Address strip_beats;
  Count num_strips;
  Count blocks;
  Count steps;
  ap_uint<1> wide;
  ap_uint<1> broadcast;  // pointwise: all lanes share a word
};

struct SequenceConfig {
  Strips strips;
  Count groups_full, groups_last_column, groups_last_row, groups_last_both;
  Count blocks;
  Count sub_rows;
  ap_uint<4> keep;
};

struct OutputConfig {  // transform_output
  ap_uint<2> op;
  ap_uint<5> sum_shift[kLanes];
};

struct FinishConfig {
  ap_uint<1> pointwise;
  ap_uint<1> pool;
  ap_uint<1> raw;
  ap_uint<6> shift;
  ap_int<16> low, high;
};

struct ResultConfig {  // write_features
  Strips strips;
  ap_uint<1> linear;
  ap_uint<1> pool;
  Count channel_groups;
  Count height, width;
  Address base, plane_words, strip_words;
  Address full_words, tail_words;
};

inline Strips strips_of(const Layer& layer) {
#pragma HLS inline
  Strips strips;
  strips.rows = layer.rows;
  strips.groups = layer.groups;
  strips.strip_rows = layer.strip_rows;
  strips.strip_groups = layer.strip_groups;
  return strips;
}

inline FeatureConfig feature_config(const Layer& layer) {
#pragma HLS inline
  FeatureConfig c;
  c.strips = strips_of(layer);
  c.linear = layer.op != kOpWinograd;
  c.dense = layer.op == kOpDense;
  c.sub_rows = layer.sub_rows;
  c.height = layer.height;
  c.width = layer.width;
  c.base = layer.feature_base;
  c.plane_words = layer.plane_words;
  c.strip_words = layer.strip_words;
  c.full_words = layer.full_words;
  c.tail_words = layer.tail_words;
  return c;
}

inline TransformConfig transform_config(const Layer& layer) {
#pragma HLS inline
  TransformConfig c;
  c.linear = layer.op != kOpWinograd;
  c.in_signed = layer.in_signed;
  c.v_limit = layer.v_limit;
each_lane:
  for (int t = 0; t < kLanes; t++) {
#pragma HLS unroll
    c.v_shift[t] = layer.v_shift[t];
  }
  return c;
}

inline WeightConfig weight_config(const Layer& layer) {
#pragma HLS inline
  WeightConfig c;
  c.base = layer.weight_base;
  c.strip_beats = layer.strip_beats;
  c.num_strips = layer.num_strips;
  c.blocks = layer.blocks;
  c.steps = layer.steps;
  c.wide = layer.wide_weights;
  c.broadcast = layer.op == kOpPointwise;
  return c;
}

inline SequenceConfig sequence_config(const Layer& layer) {
#pragma HLS inline
  SequenceConfig c;
  c.strips = strips_of(layer);
  c.groups_full = layer.groups_full;
  c.groups_last_column = layer.groups_last_column;
  c.groups_last_row = layer.groups_last_row;
  c.groups_last_both = layer.groups_last_both;
  c.blocks = layer.blocks;
  c.sub_rows = layer.sub_rows;
  c.keep = layer.keep;
  return c;
}

inline OutputConfig output_config(const Layer& layer) {
#pragma HLS inline
  OutputConfig c;
  c.op = layer.op;
each_lane:
  for (int t = 0; t < kLanes; t++) {
#pragma HLS unroll
    c.sum_shift[t] = layer.sum_shift[t];
  }
  return c;
}

inline FinishConfig finish_config(const Layer& layer) {
#pragma HLS inline
  FinishConfig c;
  c.pointwise = layer.op == kOpPointwise;
  c.pool = layer.pool;
  c.raw = layer.raw;
  c.shift = layer.y_shift;
  c.low = layer.low;
  c.high = layer.high;
  return c;
}

inline ResultConfig result_config(const Layer& layer) {
#pragma HLS inline
  ResultConfig c;
  c.strips = strips_of(layer);
  c.linear = layer.op != kOpWinograd;
  c.pool = layer.pool;
  c.channel_groups = layer.blocks / kBlocksPerGroup;
  c.height = layer.out_height;
  c.width = layer.out_width;
  c.base = layer.result_base;
  c.plane_words = layer.out_plane_words;
  c.strip_words = layer.out_strip_words;
  c.full_words = layer.out_full_words;
  c.tail_words = layer.out_tail_words;
  return c;
}

inline void configure(const Layer& layer, Stream<FeatureConfig>& read_features,
                      Stream<FeatureConfig>& form_tiles, Stream<TransformConfig>& transform_input,
                      Stream<WeightConfig>& read_weights, Stream<WeightConfig>& unpack_weights,
                      Stream<SequenceConfig>& sequence, Stream<OutputConfig>& transform_output,
                      Stream<FinishConfig>& finish, Stream<ResultConfig>& write_features) {
  read_features.write(feature_config(layer));
  form_tiles.write(feature_config(layer));
  transform_input.write(transform_config(layer));
  read_weights.write(weight_config(layer));
  unpack_weights.write(weight_config(layer));
  sequence.write(sequence_config(layer));
  transform_output.write(output_config(layer));
  finish.write(finish_config(layer));
  write_features.write(result_config(layer));
}

}  // namespace winnow
