// SPDX-License-Identifier: Apache-2.0
// read_weights: streams the packed weights of the layer once per strip, one long burst each.
// unpack_weights: splits beats into biases and lane words. II = 1 per beat.
//
// A block of kPo output channels is stored as its biases (32 bits each, kBiasBeats beats), then its
// steps in order. A low beat holds (low nibble, index) pairs of kLanesPerBeat lane words; wide
// weights put one beat of high nibbles before every two low beats. In a pointwise layer a step is
// one word that all lanes share, and a low beat holds kLanesPerBeat steps.
#pragma once

#include "winnow/configure.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

inline void read_weights(Stream<WeightConfig>& config, Port<Beat> memory, Stream<Beat>& beats) {
  const WeightConfig c = config.read();
  memory.read_request(c.base, c.strip_beats);
  Count strip = 0;
  bool last_strip;
each_strip:
  do {
    last_strip = strip + 1 == c.num_strips;
    if (!last_strip) memory.read_request(c.base, c.strip_beats);
    Address left = c.strip_beats;
  each_beat:
    do {
#pragma HLS pipeline II = 1
      beats.write(memory.read());
      left--;
    } while (left != 0);
    strip++;
  } while (!last_strip);
}

inline void unpack_biases(Stream<Beat>& beats, Stream<Biases>& biases) {
#pragma HLS inline
  constexpr int kPerBeat = kAxiBits / 32;
  Biases token;
each_beat:
  for (int b = 0; b < kBiasBeats; b++) {
#pragma HLS unroll
    Beat beat = beats.read();
  each_bias:
    for (int i = 0; i < kPerBeat; i++) {
#pragma HLS unroll
      if (b * kPerBeat + i < kPo) token.value[b * kPerBeat + i] = ap_int<32>(beat >> (32 * i));
    }
  }
  biases.write(token);
}

// The lane word at position `e` of a low beat. `high` holds the matching high nibbles.
inline WWord unpack_word(Beat low, ap_uint<kAxiBits / 2> high, bool wide, int e) {
#pragma HLS inline
  WWord word;
each_channel:
  for (int p = 0; p < kPo; p++) {
#pragma HLS unroll
    ap_uint<8> pair = ap_uint<8>(low >> (8 * (e * kPo + p)));
    ap_uint<4> nibble = ap_uint<4>(pair);
    ap_uint<4> upper = ap_uint<4>(high >> (4 * (e * kPo + p)));
    ap_int<4> narrow_value = ap_int<4>(nibble);
    ap_uint<8> wide_value = (ap_uint<8>(upper) << 4) | ap_uint<8>(nibble);
    word.entry[p].value = wide ? ap_int<8>(wide_value) : ap_int<8>(narrow_value);
    word.entry[p].index = ap_uint<kIndexBits>(pair >> 4);
  }
  return word;
}

inline void unpack_weights(Stream<WeightConfig>& config, Stream<Beat>& beats,
                           Stream<Biases>& biases, Stream<WToken> (&words)[kLanes]) {
  constexpr int kBeatsPerStep = kLanes / kLanesPerBeat;
  const WeightConfig c = config.read();
  const bool wide = c.wide != 0, broadcast = c.broadcast != 0;
  Count strip = 0;
  bool ends_layer;
each_strip:
  do {
    Count block = 0;
    bool last_block;
  each_block:
    do {
      last_block = block + 1 == c.blocks;
      unpack_biases(beats, biases);
      Count step = 0;
      ap_uint<6> beat_of_step = 0;  // winograd, dense: which lanes this low beat feeds
      ap_uint<4> word_of_beat = 0;  // pointwise: which step this low beat feeds
      ap_uint<2> half = 0;          // of the pair of low beats: 0 fetch high nibbles, 1, 2
      Beat high = 0, low = 0;
      bool ends_block;
    each_beat:
      do {
#pragma HLS pipeline II = 1
        bool take_high = wide && half == 0 && word_of_beat == 0;
        ends_block = false;
        if (take_high || word_of_beat == 0) {
          Beat beat = beats.read();
          if (take_high) {
            high = beat;
          } else {
            low = beat;
          }
        }
        if (take_high) {
          half = 1;
        } else {
          bool last_step = step + 1 == c.steps;
          bool ends_step = broadcast || beat_of_step == kBeatsPerStep - 1;
          ends_block = last_step && ends_step;
          ends_layer = ends_block && last_block && strip + 1 == c.num_strips;
          ap_uint<kAxiBits / 2> nibbles =
              ap_uint<kAxiBits / 2>(half == 2 ? Beat(high >> (kAxiBits / 2)) : high);
          WWord unpacked[kLanesPerBeat];
        each_word:
          for (int e = 0; e < kLanesPerBeat; e++) {
#pragma HLS unroll
            unpacked[e] = unpack_word(low, nibbles, wide, e);
          }
          WWord shared = Select<kLanesPerBeat, WWord>::of(unpacked, unsigned(word_of_beat));
        each_lane:
          for (int t = 0; t < kLanes; t++) {
#pragma HLS unroll
            WToken token;
            token.word = choose<WWord>(broadcast, shared, unpacked[t % kLanesPerBeat]);
            token.ends_block = last_step;
            token.ends_layer = last_step && last_block && strip + 1 == c.num_strips;
            if (broadcast || beat_of_step == t / kLanesPerBeat) words[t].write(token);
          }
          bool ends_beat = !broadcast || word_of_beat == kLanesPerBeat - 1;
          word_of_beat = ends_beat ? ap_uint<4>(0) : ap_uint<4>(word_of_beat + 1);
          if (ends_beat) half = half == 2 || !wide ? ap_uint<2>(0) : ap_uint<2>(half + 1);
          beat_of_step = ends_step ? ap_uint<6>(0) : ap_uint<6>(beat_of_step + 1);
          if (ends_step) step++;
        }
      } while (!ends_block);
      block++;
    } while (!last_block);
    strip++;
  } while (!ends_layer);
}

}  // namespace winnow
