// SPDX-License-Identifier: Apache-2.0
// read_weights: streams the packed weights of the layer once per strip, one long burst each, and
// tells at the end whether one of them differed from the descriptor's checksum.
// unpack_weights: splits beats into biases and lane words. II = 1 per beat.
//
// A block of kPo output channels is stored as its biases (32 bits each, kBiasBeats beats), then its
// steps in order. A low beat holds (low nibble, index) pairs of kLanesPerBeat lane words; wide
// weights put one beat of high nibbles before every two low beats. In a direct layer a step is
// one word that all lanes share, and a low beat holds kLanesPerBeat steps.
#pragma once

#include "program.hpp"
#include "winnow/crc.hpp"
#include "winnow/stream.hpp"
#include "winnow/tokens.hpp"

namespace winnow {

using BeatBound = ap_int<33>;  // of a burst of weights

// One burst per strip; the next strip's is requested when this one's data begins.
inline void read_weights(Stream<ReadWeightsConfig>& config, Port<Beat> memory, Stream<Beat>& beats,
                         Stream<Flaw>& damage) {
  const ReadWeightsConfig c = config.read();
  const BeatBound bound = BeatBound(c.strip_beats) - 2;
  StripWalk strip;
  strip.start(c.strips);
  DownCounter<BeatBound> left;
  left.start(bound);
  memory.read_request(c.base, c.strip_beats);
  const Crc expected = Crc(~c.checksum);
  Crc crc = expected;  // of the strip before, looked at when the next one starts
  bool damaged = false;
  bool starts_strip = true, ends_layer = false, finished;
each_beat:
  do {
#pragma HLS pipeline II = 1
    finished = ends_layer;  // one step more, in which the last strip's checksum is looked at
    if (starts_strip && crc != expected) damaged = true;
    if (!finished) {
      if (starts_strip && !strip.is_last()) memory.read_request(c.base, c.strip_beats);
      const Beat beat = memory.read();
      beats.write(beat);
      crc = update_crc<kAxiBits>(choose<Crc>(starts_strip, Crc(kCrcStart), crc), beat);
      starts_strip = left.is_last();
      ends_layer = starts_strip && strip.is_last();
      left.cycle(bound);
      if (starts_strip) strip.advance(c.strips);
    }
  } while (!finished);
  damage.write(damaged ? 1 : 0);
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
inline WWord lane_word(Beat low, ap_uint<kAxiBits / 2> high, bool wide, int e) {
#pragma HLS inline
  Entry entries[kPo];
each_channel:
  for (int p = 0; p < kPo; p++) {
#pragma HLS unroll
    ap_uint<8> pair = ap_uint<8>(low >> (8 * (e * kPo + p)));
    ap_uint<4> nibble = ap_uint<4>(pair);
    ap_uint<4> upper = ap_uint<4>(high >> (4 * (e * kPo + p)));
    ap_int<4> narrow_value = ap_int<4>(nibble);
    ap_uint<8> wide_value = (ap_uint<8>(upper) << 4) | ap_uint<8>(nibble);
    ap_uint<8> value = wide ? wide_value : ap_uint<8>(ap_int<8>(narrow_value));
    entries[p] = (Entry(ap_uint<kIndexBits>(pair >> 4)) << 8) | Entry(value);
  }
  return pack_word(entries);
}

// What the current beat is. Exactly one holds, a register each, known a beat ahead.
struct BeatKind {
  bool is_bias, is_high, is_low;

  void start() {
#pragma HLS inline
    is_bias = true;
    is_high = false;
    is_low = false;
  }
  // `wide` weights have a beat of high nibbles in front of two low beats.
  void advance(bool last_bias, bool ends_block, bool ends_pair, bool wide) {
#pragma HLS inline
    bool to_bias = is_low && ends_block;
    bool to_weights = (is_bias && last_bias) || (is_low && !ends_block && ends_pair);
    bool stays_low = is_low && !ends_block && !ends_pair;
    is_bias = to_bias || (is_bias && !last_bias);
    is_low = is_high || stays_low || (to_weights && !wide);
    is_high = to_weights && wide;
  }
};

// One loop for all blocks and strips, so that no iteration is lost between them.
inline void unpack_weights(Stream<UnpackWeightsConfig>& config, Stream<Beat>& beats,
                           Stream<Biases>& biases, Stream<WToken> (&words)[kLanes]) {
  constexpr int kBeatsPerStep = kLanes / kLanesPerBeat;
  const UnpackWeightsConfig c = config.read();
  const bool wide = c.wide != 0, broadcast = c.broadcast != 0;
  StripWalk strip;
  strip.start(c.strips);
  DownCounter<Bound> blocks, sub_rows, part;
  DownCounter<KeepBound> kept;
  blocks.start(c.blocks);
  sub_rows.start(c.sub_rows);
  kept.start(c.keep);
  part.start(c.part_steps);
  BeatKind kind;
  kind.start();
  ap_uint<3> bias_beat = 0;
  ap_uint<kBeatsPerStep> turn = 1;  // winograd, dense: which lanes this low beat feeds, one bit
  ap_uint<4> word_of_beat = 0;      // direct: which step this low beat feeds
  bool takes_beat = true;           // direct: the words of a beat take turns
  bool second = false;              // low beat of the pair
  Beat high = 0, low = 0;
  Biases bias;
  bool ends_layer;
each_beat:
  do {
#pragma HLS pipeline II = 1
    Beat beat = low;
    if (takes_beat) beat = beats.read();
    bool last_bias = bias_beat == kBiasBeats - 1;
    if (kind.is_bias) shift_biases(bias, beat);
    if (kind.is_bias && last_bias) biases.write(bias);
    high = choose<Beat>(kind.is_high, beat, high);
    low = choose<Beat>(kind.is_low, beat, low);

    bool ends_step = kind.is_low && (broadcast || turn[kBeatsPerStep - 1]);
    bool last_step = kept.is_last() && sub_rows.is_last();
    bool ends_half = last_step || part.is_last();
    bool ends_block = ends_step && last_step;
    bool ends_strip = ends_block && blocks.is_last();
    ends_layer = ends_strip && strip.is_last();

    Beat nibbles = choose<Beat>(second, high >> (kAxiBits / 2), high);
    WWord unpacked[kLanesPerBeat];
  each_word:
    for (int e = 0; e < kLanesPerBeat; e++) {
#pragma HLS unroll
      unpacked[e] = lane_word(low, ap_uint<kAxiBits / 2>(nibbles), wide, e);
    }
    WWord shared = Select<kLanesPerBeat, WWord>::of(unpacked, unsigned(word_of_beat));
  each_lane:
    for (int t = 0; t < kLanes; t++) {
#pragma HLS unroll
      WToken token;
      token.word = choose<WWord>(broadcast, shared, unpacked[t % kLanesPerBeat]);
      token.ends_half = ends_half;
      token.ends_layer = last_step && blocks.is_last() && strip.is_last();
      bool feeds = broadcast || turn[t / kLanesPerBeat];
      if (kind.is_low && feeds) words[t].write(token);
    }

    // a block ends with a whole beat: what is left of it and of a pair is padding
    bool ends_beat = !broadcast || word_of_beat == kLanesPerBeat - 1 || ends_block;
    bool ends_pair = ends_beat && (second || !wide);
    takes_beat = !kind.is_low || ends_beat;
    if (kind.is_low) {
      word_of_beat = choose<ap_uint<4>>(ends_beat, 0, word_of_beat + 1);
      turn = choose<ap_uint<kBeatsPerStep>>(ends_step, 1, turn << 1);
      second = wide && !ends_block && (second != ends_beat);
    }
    bias_beat = choose<ap_uint<3>>(kind.is_bias && !last_bias, bias_beat + 1, 0);
    kind.advance(last_bias, ends_block, ends_pair, wide);
    if (ends_step && kept.is_last()) sub_rows.cycle(c.sub_rows);
    if (ends_step) kept.cycle(c.keep);
    if (ends_step) part.left = choose<Bound>(ends_half, c.part_steps, Bound(part.left - 1));
    if (ends_block) blocks.cycle(c.blocks);
    if (ends_strip) strip.advance(c.strips);
  } while (!ends_layer);
}

}  // namespace winnow
