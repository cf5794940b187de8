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

// Shift a beat of biases in; after kBiasBeats of them the block's biases are in place.
inline void shift_biases(Biases& biases, Beat beat) {
#pragma HLS inline
  constexpr int kPerBeat = kAxiBits / 32;
  constexpr int kFirst = kPo > kPerBeat ? kPo - kPerBeat : 0;
shift:
  for (int i = 0; i < kFirst; i++) {
#pragma HLS unroll
    biases.value[i] = biases.value[(i + kPerBeat) % kPo];
  }
take:
  for (int i = kFirst; i < kPo; i++) {
#pragma HLS unroll
    biases.value[i] = ap_int<32>(beat >> (32 * (i - kFirst)));
  }
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

// One loop for all blocks and strips, so that no iteration is lost between them.
inline void unpack_weights(Stream<WeightConfig>& config, Stream<Beat>& beats,
                           Stream<Biases>& biases, Stream<WToken> (&words)[kLanes]) {
  constexpr int kBeatsPerStep = kLanes / kLanesPerBeat;
  const WeightConfig c = config.read();
  const bool wide = c.wide != 0, broadcast = c.broadcast != 0;
  Count strip = 0, block = 0, step = 0;
  ap_uint<4> bias_beat = 0;     // kBiasBeats: the biases of the block are complete
  ap_uint<6> beat_of_step = 0;  // winograd, dense: which lanes this low beat feeds
  ap_uint<4> word_of_beat = 0;  // pointwise: which step this low beat feeds
  ap_uint<2> half = 0;          // of the pair of low beats: 0 fetch high nibbles, 1, 2
  Beat high = 0, low = 0;
  Biases bias;
  bool ends_layer;
each_beat:
  do {
#pragma HLS pipeline II = 1
    bool is_bias = bias_beat != kBiasBeats;
    bool is_high = !is_bias && wide && half == 0 && word_of_beat == 0;
    bool is_low = !is_bias && !is_high;
    Beat beat = low;
    if (word_of_beat == 0) beat = beats.read();
    if (is_bias) shift_biases(bias, beat);
    if (is_bias && bias_beat == kBiasBeats - 1) biases.write(bias);
    high = choose<Beat>(is_high, beat, high);
    low = choose<Beat>(is_low, beat, low);

    bool last_step = step + 1 == c.steps;
    bool last_block = block + 1 == c.blocks;
    bool last_strip = strip + 1 == c.num_strips;
    bool ends_step = is_low && (broadcast || beat_of_step == kBeatsPerStep - 1);
    bool ends_block = ends_step && last_step;
    bool ends_strip = ends_block && last_block;
    ends_layer = ends_strip && last_strip;

    Beat nibbles = choose<Beat>(half == 2, high >> (kAxiBits / 2), high);
    WWord unpacked[kLanesPerBeat];
  each_word:
    for (int e = 0; e < kLanesPerBeat; e++) {
#pragma HLS unroll
      unpacked[e] = unpack_word(low, ap_uint<kAxiBits / 2>(nibbles), wide, e);
    }
    WWord shared = Select<kLanesPerBeat, WWord>::of(unpacked, unsigned(word_of_beat));
  each_lane:
    for (int t = 0; t < kLanes; t++) {
#pragma HLS unroll
      WToken token;
      token.word = choose<WWord>(broadcast, shared, unpacked[t % kLanesPerBeat]);
      token.ends_block = last_step;
      token.ends_layer = last_step && last_block && last_strip;
      bool feeds = broadcast || beat_of_step == t / kLanesPerBeat;
      if (is_low && feeds) words[t].write(token);
    }

    // a block ends with a whole beat: what is left of it and of a pair is padding
    bool ends_beat = !broadcast || word_of_beat == kLanesPerBeat - 1 || ends_block;
    ap_uint<4> next_word = choose<ap_uint<4>>(ends_beat, 0, word_of_beat + 1);
    word_of_beat = choose<ap_uint<4>>(is_low, next_word, word_of_beat);
    ap_uint<2> next_half = choose<ap_uint<2>>(half == 2 || !wide || ends_block, 0, half + 1);
    half = choose<ap_uint<2>>(is_high || (is_low && ends_beat), next_half, half);
    ap_uint<6> next_beat = choose<ap_uint<6>>(ends_step, 0, beat_of_step + 1);
    beat_of_step = choose<ap_uint<6>>(is_low, next_beat, beat_of_step);
    bias_beat =
        choose<ap_uint<4>>(ends_block, 0, choose<ap_uint<4>>(is_bias, bias_beat + 1, bias_beat));
    step = choose<Count>(ends_block, 0, choose<Count>(ends_step, step + 1, step));
    block = choose<Count>(ends_strip, 0, choose<Count>(ends_block, block + 1, block));
    strip = choose<Count>(ends_strip, strip + 1, strip);
  } while (!ends_layer);
}

}  // namespace winnow
