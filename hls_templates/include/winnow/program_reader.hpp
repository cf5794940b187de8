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
  return kStatusOk;
}

struct HeaderCheck {
  void step(bool, const Word (&)[kHeaderWords]) {}
  Status status(const Word (&words)[kHeaderWords]) const {
#pragma HLS inline
    return check_header(words);
  }
};

// What the host allows, once a layer: addresses of the memories end here.
struct Limits {
  Length weight_beats, feature_words;
};

struct DescriptorCheck {
  LayerCheck rules;
  Limits most;

  void step(bool starts, const Word (&early)[kLayerWords], Stream<Limits>& limits) {
#pragma HLS inline
    if (starts) most = limits.read();
    rules.step(starts, unpack_layer(early));
  }
  Status status(const Word (&words)[kLayerWords]) const {
#pragma HLS inline
    const Layer layer = unpack_layer(words);
    if (layer.op > kOpDense) return kStatusBadOpcode;
    if (rules.is_bad(layer, most.feature_words)) return kStatusBadSize;
    const bool fits = ap_uint<33>(layer.weight_base) + layer.strip_beats <= most.weight_beats;
    return fits ? kStatusOk : kStatusBadAddress;
  }
};

// Of a damaged header or descriptor only magic and version say anything.
inline Status with_checksum(Status found, bool intact, int damaged) {
#pragma HLS inline
  bool tells = intact || found == kStatusBadMagic || found == kStatusBadVersion;
  return choose<Status>(tells, found, Status(damaged));
}

// Take N words and check them; the last one is the checksum of the others. The words pass through a
// line of registers that is kSettle longer, so that every decision about them has a step of its own
// before they are used. `check` sees the first EARLY words as soon as they are there,
// and takes then what the host allows.
constexpr int kSettle = 3;

template <int DAMAGED, int EARLY, int N, class Check, class... Limit>
Status read_checked(Stream<Word>& source, Word (&words)[N], Check& check, Limit&... limit) {
#pragma HLS inline
  Word line[N + kSettle];
#pragma HLS array_partition variable = line type = complete
  DownCounter<WordBound> left;
  left.start(N - 2);
  Crc crc = kCrcStart, before;
  Status found = kStatusOk, status = kStatusOk, settled_status;
  bool intact = false, reads = true, compares = false, decides = false, settled;
each_word:
  do {
#pragma HLS pipeline II = 1
    settled = decides;
    decides = compares;
    compares = !reads;
    settled_status = status;
    status = with_checksum(found, intact, DAMAGED);
    Word arrived[N];
  view:  // where the words are in the step after the last one
    for (int j = 0; j < N; j++) {
#pragma HLS unroll
      arrived[j] = line[j + kSettle];
    }
    Word early[N];
  early_view:  // where the first words are once EARLY of them have come
    for (int j = 0; j < N; j++) {
#pragma HLS unroll
      early[j] = j < EARLY ? line[(j + kSettle + N - EARLY) % (N + kSettle)] : Word(0);
    }
    found = check.status(arrived);
    check.step(left.left == N - EARLY - 2, early, limit...);
    intact = Word(Crc(~before)) == line[N + kSettle - 1];
    Word word = 0;
    if (reads) {
      word = source.read();
      before = crc;
      crc = update_crc<64>(crc, word);
      reads = !left.is_last();
      left.step();
    }
  shift:
    for (int j = 0; j < N + kSettle - 1; j++) {
#pragma HLS unroll
      line[j] = line[j + 1];
    }
    line[N + kSettle - 1] = word;
  } while (!settled);
take:
  for (int j = 0; j < N; j++) {
#pragma HLS unroll
    words[j] = line[j];
  }
  return settled_status;
}

struct Verdict {
  ap_uint<1> ok;
  Status status;
  ap_uint<16> num_layers;  // of a header
};

inline Verdict verdict_of(Status status, ap_uint<16> num_layers) {
#pragma HLS inline
  Verdict verdict;
  verdict.ok = status == kStatusOk;
  verdict.status = status;
  verdict.num_layers = num_layers;
  return verdict;
}

// The verdict on a layer that has run.
inline Verdict verdict_of_run(bool damaged_weights, bool went_outside) {
#pragma HLS inline
  Status status = choose<Status>(damaged_weights, kStatusBadWeights, kStatusOk);
  return verdict_of(choose<Status>(went_outside, kStatusBadAddress, status), 0);
}

// Whether the host's words hold a header.
inline bool holds_header(Length program_words) {
#pragma HLS inline
  return program_words >= kHeaderWords;
}

// check_program: takes the words of the header, if the host's words of the program hold one.
inline void check_program(Stream<Length>& program_words, Stream<Word>& header,
                          Stream<Verdict>& verdict) {
  const Length most = program_words.read();
  if (!holds_header(most)) {
    verdict.write(verdict_of(kStatusBadAddress, 0));
    return;
  }
  Word words[kHeaderWords];
#pragma HLS array_partition variable = words type = complete
  HeaderCheck check;
  Status status = read_checked<kStatusBadHeader, kHeaderWords>(header, words, check);
  const ap_uint<16> num_layers = unpack_header(words).num_layers;
  const bool fits = Length(num_layers) * kLayerWords + kHeaderWords <= most;
  if (status == kStatusOk && !fits) status = kStatusBadAddress;
  verdict.write(verdict_of(status, num_layers));
}

// Pass N words on as they arrive.
template <int N>
void forward(Port<Word>& program, Address address, Stream<Word>& words) {
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
