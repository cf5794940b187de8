// SPDX-License-Identifier: Apache-2.0
// Reads and checks the program. Damage ends the run with a status code: header and descriptors
// carry checksums, and sizes are compared with the engine's buffers. A forged descriptor with a
// valid checksum and sizes that contradict each other is not detected.
#pragma once

#include "program.hpp"
#include "winnow/countdown.hpp"
#include "winnow/stream.hpp"

namespace winnow {

using Status = ap_uint<kStatusCodeBits>;
using WordBound = ap_int<7>;  // of a descriptor

inline ap_uint<64> update_checksum(ap_uint<64> checksum, ap_uint<64> word) {
#pragma HLS inline
  return ((checksum << 1) | (checksum >> 63)) ^ word;
}

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

inline Status check_layer(const Layer& layer) {
#pragma HLS inline
  if (layer.op > kOpDense) return kStatusBadOpcode;
  bool is_empty = is_zero(layer.keep) || is_zero(layer.sub_rows) || is_zero(layer.steps) ||
                  is_zero(layer.blocks) || is_zero(layer.strips_down) ||
                  is_zero(layer.strips_across) || is_zero(layer.num_strips) ||
                  is_zero(layer.groups_full) || layer.strip_beats == 0;
  bool is_large = layer.keep > kSubRow - 2 || layer.steps > kWWords - 2 ||
                  layer.v_words > kVWords || layer.out_tiles > kOutTiles ||
                  layer.v_limit > kMaxVLimit;
  bool is_wide = layer.op == kOpWinograd && layer.columns_full > kLinePixels - 2;
  return is_empty || is_large || is_wide ? kStatusBadSize : kStatusOk;
}

inline Status check_descriptor(const Word (&words)[kLayerWords]) {
#pragma HLS inline
  return check_layer(unpack_layer(words));
}

// Of a damaged header or descriptor only magic and version say anything.
inline Status with_checksum(Status found, bool intact) {
#pragma HLS inline
  bool tells = intact || found == kStatusBadMagic || found == kStatusBadVersion;
  return choose<Status>(tells, found, Status(kStatusBadChecksum));
}

// Take N words and check them; the last one is the checksum of the others. The words pass through a
// line of registers that is kSettle longer, so that every decision about them has a step of its own
// before they are used.
constexpr int kSettle = 3;

template <int N, Status (*CHECK)(const Word (&words)[N])>
Status read_checked(Stream<Word>& source, Word (&words)[N]) {
#pragma HLS inline
  Word line[N + kSettle];
#pragma HLS array_partition variable = line type = complete
  Countdown<WordBound> left;
  left.start(N - 2);
  ap_uint<64> checksum = 0, before;
  Status found = kStatusOk, status = kStatusOk, settled_status;
  bool intact = false, reads = true, compares = false, decides = false, settled;
each_word:
  do {
#pragma HLS pipeline II = 1
    settled = decides;
    decides = compares;
    compares = !reads;
    settled_status = status;
    status = with_checksum(found, intact);
    Word arrived[N];
  view:  // where the words are in the step after the last one
    for (int j = 0; j < N; j++) {
#pragma HLS unroll
      arrived[j] = line[j + kSettle];
    }
    found = CHECK(arrived);
    intact = before == line[N + kSettle - 1];
    Word word = 0;
    if (reads) {
      word = source.read();
      before = checksum;
      checksum = update_checksum(checksum, word);
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

// check_program: takes the words of the header.
inline void check_program(Stream<Word>& header, Stream<Verdict>& verdict) {
  Word words[kHeaderWords];
#pragma HLS array_partition variable = words type = complete
  Status status = read_checked<kHeaderWords, check_header>(header, words);
  verdict.write(verdict_of(status, unpack_header(words).num_layers));
}

// Pass N words on as they arrive.
template <int N>
void forward(Port<Word>& program, Address address, Stream<Word>& words) {
#pragma HLS inline
  program.read_request(address, N);
  Countdown<WordBound> left;
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
