// SPDX-License-Identifier: Apache-2.0
// configure: takes the words of a layer's descriptor, checks them and says what it found. If all is
// well, it hands each process what it needs of a layer's descriptor, as the first token of a
// channel of its own: the same mechanism as all other communication, in every back end.
#pragma once

#include "winnow/program_reader.hpp"
#include "winnow/stream.hpp"

namespace winnow {

inline void configure(Stream<Limits>& limits, Stream<Word>& descriptor, Stream<Verdict>& verdict,
                      Stream<PlanRowsConfig>& plan_reads, Stream<StorePlaneConfig>& store_plane,
                      Stream<GatherPixelsConfig>& gather_pixels,
                      Stream<TakeMaximaConfig>& take_maxima, Stream<FormTilesConfig>& form_tiles,
                      Stream<TransformInputConfig>& transform_input,
                      Stream<ReadWeightsConfig>& read_weights,
                      Stream<UnpackWeightsConfig>& unpack_weights, Stream<SequenceConfig>& sequence,
                      Stream<TransformOutputConfig>& transform_output,
                      Stream<PlanRowsConfig>& plan_shortcuts,
                      Stream<ReadShortcutsConfig>& read_shortcuts, Stream<FinishConfig>& finish,
                      Stream<PlanRowsConfig>& plan_writes,
                      Stream<WriteFeaturesConfig>& write_features) {
  Word words[kLayerWords];
#pragma HLS array_partition variable = words type = complete
  DescriptorCheck check;
  check.rules.start();
  const Outcome outcome =
      read_checked<kStatusBadDescriptor, kEarlyWords>(descriptor, words, check, limits);
  Layer layer = unpack_layer(words);
  layer.feature_words = check.most.feature_words;
  layer.image_base = check.most.image_base;
  Verdict found = verdict_of(outcome.status);
  found.ok = outcome.is_ok;
  verdict.write(found);
  if (!outcome.is_ok) return;
  plan_reads.write(plan_reads_config(layer));
  store_plane.write(store_plane_config(layer));
  gather_pixels.write(gather_pixels_config(layer));
  take_maxima.write(take_maxima_config(layer));
  form_tiles.write(form_tiles_config(layer));
  transform_input.write(transform_input_config(layer));
  read_weights.write(read_weights_config(layer));
  unpack_weights.write(unpack_weights_config(layer));
  sequence.write(sequence_config(layer));
  transform_output.write(transform_output_config(layer));
  plan_shortcuts.write(plan_shortcuts_config(layer));
  read_shortcuts.write(read_shortcuts_config(layer));
  finish.write(finish_config(layer));
  plan_writes.write(plan_writes_config(layer));
  write_features.write(write_features_config(layer));
}

}  // namespace winnow
