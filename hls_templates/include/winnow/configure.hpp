// SPDX-License-Identifier: Apache-2.0
// configure: takes the words of a layer's descriptor, checks them and says what it found. If all is
// well, it hands each process what it needs of a layer's descriptor, as the first token of a
// channel of its own: the same mechanism as all other communication, in every back end.
#pragma once

#include "winnow/program_reader.hpp"
#include "winnow/stream.hpp"
#include "winnow/strips.hpp"

namespace winnow {

struct PlanRowsConfig {  // plan_rows
  Strips strips;
  Bound planes;
  ap_uint<1> dense;  // the last column's words are those of the last plane only
  ap_uint<1> skip_last_row, skip_last_column;
  Address base, row_words, plane_words;
  Address right_first, right, down_first, down;  // from a strip to the next
  Places rows, words;
};

struct FormTilesConfig {  // form_tiles
  Strips strips;
  ap_uint<1> linear;  // pointwise or dense: no tiles, a run of words
  ap_uint<1> dense;
  Bound sub_rows;
  Bound rows_full, rows_last;  // of a padded strip
  WideBound columns_full, columns_last;
  Places read_rows, read_words;  // what of it lies in the map
};

struct TransformInputConfig {
  ap_uint<1> linear;
  ap_uint<1> in_signed;
  ap_uint<7> v_limit;
  ap_uint<4> v_shift[kLanes];
};

struct WeightConfig {  // read_weights and unpack_weights
  Address base;
  Address strip_beats;
  Bound num_strips;
  Bound blocks;
  Bound steps;
  ap_uint<1> wide;
  ap_uint<1> broadcast;  // pointwise: all lanes share a word
};

struct SequenceConfig {
  Strips strips;
  Bound groups_full, groups_last_column, groups_last_row, groups_last_both;
  Bound blocks;
  Bound sub_rows;
  KeepBound keep;
};

struct TransformOutputConfig {  // transform_output
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

struct WriteFeaturesConfig {  // write_features
  ap_uint<1> linear;
  ap_uint<1> pool;
  TileAddress tiles_full, tiles_last;  // in a row of a strip
};

inline Strips strips_of(const Layer& layer) {
#pragma HLS inline
  Strips strips;
  strips.down = layer.strips_down;
  strips.across = layer.strips_across;
  return strips;
}

inline Places read_rows_of(const Layer& layer) {
#pragma HLS inline
  Places rows;
  rows.first = layer.read_rows_first;
  rows.middle = layer.read_rows_middle;
  rows.last = layer.read_rows_last;
  return rows;
}

inline Places read_words_of(const Layer& layer) {
#pragma HLS inline
  Places words;
  words.first = layer.read_words_first;
  words.middle = layer.read_words_middle;
  words.last = layer.read_words_last;
  return words;
}

inline PlanRowsConfig reads_config(const Layer& layer) {
#pragma HLS inline
  PlanRowsConfig c;
  c.strips = strips_of(layer);
  c.planes = layer.sub_rows;
  c.dense = layer.op == kOpDense;
  c.skip_last_row = 0;
  c.skip_last_column = 0;
  c.base = layer.feature_base;
  c.row_words = layer.row_words;
  c.plane_words = layer.plane_words;
  c.right_first = layer.read_right_first;
  c.right = layer.read_right;
  c.down_first = layer.read_down_first;
  c.down = layer.read_down;
  c.rows = read_rows_of(layer);
  c.words = read_words_of(layer);
  return c;
}

// Strips of results have no border: those in the first row and column are like the others.
inline PlanRowsConfig writes_config(const Layer& layer) {
#pragma HLS inline
  PlanRowsConfig c;
  c.strips = strips_of(layer);
  c.planes = layer.channel_groups;
  c.dense = 0;
  c.skip_last_row = layer.skip_last_row;
  c.skip_last_column = layer.skip_last_column;
  c.base = layer.result_base;
  c.row_words = layer.out_row_words;
  c.plane_words = layer.out_plane_words;
  c.right_first = layer.write_right;
  c.right = layer.write_right;
  c.down_first = layer.write_down;
  c.down = layer.write_down;
  c.rows.first = layer.write_rows_full;
  c.rows.middle = layer.write_rows_full;
  c.rows.last = layer.write_rows_last;
  c.words.first = layer.write_words_full;
  c.words.middle = layer.write_words_full;
  c.words.last = layer.write_words_last;
  return c;
}

inline FormTilesConfig feature_config(const Layer& layer) {
#pragma HLS inline
  FormTilesConfig c;
  c.strips = strips_of(layer);
  c.linear = layer.op != kOpWinograd;
  c.dense = layer.op == kOpDense;
  c.sub_rows = layer.sub_rows;
  c.rows_full = layer.rows_full;
  c.rows_last = layer.rows_last;
  c.columns_full = layer.columns_full;
  c.columns_last = layer.columns_last;
  c.read_rows = read_rows_of(layer);
  c.read_words = read_words_of(layer);
  return c;
}

inline TransformInputConfig transform_config(const Layer& layer) {
#pragma HLS inline
  TransformInputConfig c;
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

inline TransformOutputConfig output_config(const Layer& layer) {
#pragma HLS inline
  TransformOutputConfig c;
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

inline WriteFeaturesConfig result_config(const Layer& layer) {
#pragma HLS inline
  WriteFeaturesConfig c;
  c.linear = layer.op != kOpWinograd;
  c.pool = layer.pool;
  c.tiles_full = TileAddress(layer.tiles_full);
  c.tiles_last = TileAddress(layer.tiles_last);
  return c;
}

inline void configure(Stream<Word>& descriptor, Stream<Verdict>& verdict,
                      Stream<PlanRowsConfig>& plan_reads, Stream<FormTilesConfig>& form_tiles,
                      Stream<TransformInputConfig>& transform_input,
                      Stream<WeightConfig>& read_weights, Stream<WeightConfig>& unpack_weights,
                      Stream<SequenceConfig>& sequence,
                      Stream<TransformOutputConfig>& transform_output, Stream<FinishConfig>& finish,
                      Stream<PlanRowsConfig>& plan_writes,
                      Stream<WriteFeaturesConfig>& write_features) {
  Word words[kLayerWords];
#pragma HLS array_partition variable = words type = complete
  Status status = read_checked<kLayerWords, check_descriptor>(descriptor, words);
  verdict.write(verdict_of(status, 0));
  if (status != kStatusOk) return;
  const Layer layer = unpack_layer(words);
  plan_reads.write(reads_config(layer));
  form_tiles.write(feature_config(layer));
  transform_input.write(transform_config(layer));
  read_weights.write(weight_config(layer));
  unpack_weights.write(weight_config(layer));
  sequence.write(sequence_config(layer));
  transform_output.write(output_config(layer));
  finish.write(finish_config(layer));
  plan_writes.write(writes_config(layer));
  write_features.write(result_config(layer));
}

}  // namespace winnow
