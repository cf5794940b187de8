// SPDX-License-Identifier: Apache-2.0
// Reads and checks the program. Damage ends the run with a status code: header and descriptors
// carry checksums, and sizes are compared with the engine's buffers.
#pragma once

#include "program.hpp"
#include "winnow/crc.hpp"
#include "winnow/down_counter.hpp"
#include "winnow/layer_check.hpp"
#include "winnow/stream.hpp"

namespace winnow {

using Status = ap_uint<kStatusCodeBits>;
using WordBound = ap_int<7>;  // of a descriptor

// What is wrong with a header or a descriptor whose checksum is right.
inline Status check_header(const Word (&words)[kHeaderWords]) {
#pragma HLS inline
  const Header header = unpack_header(words);
  if (header.magic != kMagic) return kStatusBadMagic;
  if (header.version != kVersion) return kStatusBadVersion;
  if (header.signature != Word(kSignature)) return kStatusWrongEngine;
  if (header.num_layers == 0 || header.num_layers > kMaxLayers) return kStatusBadLayerCount;
  if (header.num_images == 0) return kStatusBadImageCount;
  return kStatusOk;
}

struct HeaderCheck {
  Status status = kStatusOk;

  void step(bool, const Word (&)[kHeaderWords]) {}
  Status found() const { return status; }
  bool is_sound() const { return status == kStatusOk; }
  void settle(const Word (&words)[kHeaderWords]) {
#pragma HLS inline
    status = check_header(words);
  }
};

// Once a layer: what the host allows, which is where addresses of the memories end, and where the
// image's maps begin.
struct Limits {
  Length weight_beats, feature_words;
  Address image_base;
};

struct DescriptorCheck {
  LayerCheck rules;
  Limits most;
  ap_uint<33> weights_end = 0;
  bool is_outside = false, is_unknown = false;

  void step(bool starts, const Word (&early)[kLayerWords], Stream<Limits>& limits) {
#pragma HLS inline
    if (starts) most = limits.read();
    rules.step(starts, unpack_layer(early));
  }
  // What is wrong, kRuleSteps steps after the last word.
  Status found() const {
#pragma HLS inline
    const Status status = choose<Status>(is_outside, kStatusBadAddress, kStatusOk);
    const Status sized = choose<Status>(rules.is_bad, kStatusBadSize, status);
    return choose<Status>(is_unknown, kStatusBadOpcode, sized);
  }
  bool is_sound() const { return !is_unknown && !rules.is_bad && !is_outside; }
  void settle(const Word (&words)[kLayerWords]) {
#pragma HLS inline
    const Layer layer = unpack_layer(words);
    rules.settle(layer, most.feature_words);
    is_unknown = layer.op > kOpDense;
    is_outside = weights_end > most.weight_beats;
    weights_end = ap_uint<33>(layer.weight_base) + layer.strip_beats;
  }
};

// Of a damaged header or descriptor only magic and version say anything.
inline Status with_checksum(Status found, bool intact, int damaged) {
#pragma HLS inline
  bool tells = intact || found == kStatusBadMagic || found == kStatusBadVersion;
  return choose<Status>(tells, found, Status(damaged));
}

// Take N words and check them; the last one is the checksum of the others. `check` sees the first
// EARLY words as soon as they are there, and takes then what the host allows. When all have come,
// its decisions get kSettle steps, so that each of them begins and ends at registers.
constexpr int kSettle = kRuleSteps + 2;

struct Outcome {
  Status status;
  bool is_ok;  // status is kStatusOk; a register of its own
};

template <int DAMAGED, int EARLY, int N, class Check, class... Limit>
Outcome read_checked(Stream<Word>& source, Word (&words)[N], Check& check, Limit&... limit) {
#pragma HLS inline
  DownCounter<WordBound> left, steps;
  left.start(N - 2);
  Crc crc = kCrcStart, before;
  bool starts = false, last;
each_word:
  do {
#pragma HLS pipeline II = 1
    Word early[N];
  early_view:  // where the first words are once EARLY of them have come
    for (int j = 0; j < N; j++) {
#pragma HLS unroll
      early[j] = j < EARLY ? words[(j + N - EARLY) % N] : Word(0);
    }
    check.step(starts, early, limit...);
    starts = left.left == N - EARLY - 1;
    before = crc;
    const Word word = source.read();
    crc = update_crc<64>(crc, word);
  shift:
    for (int j = 0; j < N - 1; j++) {
#pragma HLS unroll
      words[j] = words[j + 1];
    }
    words[N - 1] = word;
    last = left.is_last();
    left.step();
  } while (!last);
  Outcome settled, outcome = {kStatusOk, false};
  Crc expected = 0;
  bool intact = false;
  steps.start(kSettle - 2);
each_decision:
  do {
#pragma HLS pipeline II = 1
    settled = outcome;
    outcome.status = with_checksum(check.found(), intact, DAMAGED);
    outcome.is_ok = intact && check.is_sound();
    check.settle(words);
    intact = Word(expected) == words[N - 1];
    expected = ~before;
    last = steps.is_last();
    steps.step();
  } while (!last);
  return settled;
}

struct Verdict {
  ap_uint<1> ok;
  Status status;
};

inline Verdict verdict_of(Status status) {
#pragma HLS inline
  Verdict verdict;
  verdict.ok = status == kStatusOk;
  verdict.status = status;
  return verdict;
}

// What is found of a header, and what the run takes from it.
struct ProgramVerdict {
  Verdict verdict;
  Count num_layers;
  ap_uint<kStatusImagesBits> num_images;
  Address image_words;
};

inline ProgramVerdict verdict_of_program(Status status, const Header& header) {
#pragma HLS inline
  ProgramVerdict found;
  found.verdict = verdict_of(status);
  found.num_layers = header.num_layers;
  found.num_images = header.num_images;
  found.image_words = header.image_words;
  return found;
}

// The verdict on a layer that has run.
inline Verdict verdict_of_run(bool damaged_weights, bool went_outside) {
#pragma HLS inline
  Status status = choose<Status>(damaged_weights, kStatusBadWeights, kStatusOk);
  return verdict_of(choose<Status>(went_outside, kStatusBadAddress, status));
}

// Whether the host's words hold a header.
inline bool holds_header(Length program_words) {
#pragma HLS inline
  return program_words >= kHeaderWords;
}

// check_program: takes the words of the header, if the host's words of the program hold one.
inline void check_program(Stream<Length>& program_words, Stream<Word>& header,
                          Stream<ProgramVerdict>& verdict) {
  const Length most = program_words.read();
  if (!holds_header(most)) {
    ProgramVerdict outside = {};
    outside.verdict = verdict_of(kStatusBadAddress);
    verdict.write(outside);
    return;
  }
  Word words[kHeaderWords];
#pragma HLS array_partition variable = words type = complete
  HeaderCheck check;
  Status status = read_checked<kStatusBadHeader, kHeaderWords>(header, words, check).status;
  const Header found = unpack_header(words);
  const bool fits = Length(found.num_layers) * kLayerWords + kHeaderWords <= most;
  if (status == kStatusOk && !fits) status = kStatusBadAddress;
  verdict.write(verdict_of_program(status, found));
}

// Pass N words on as they arrive.
template <int N>
void forward(Port<Word> program, Address address, Stream<Word>& words) {
#pragma HLS inline
  program.read_request(address, N);
  DownCounter<WordBound> left;
  left.start(N - 2);
  bool last;
each_word:
  do {
#pragma HLS pipeline II = 1
    last = left.is_last();
    left.step();
    words.write(program.read());
  } while (!last);
}

}  // namespace winnow
