// SPDX-License-Identifier: Apache-2.0
// Reads and checks the program. Damage ends the run with a status code: header and descriptors
// carry checksums, and sizes are compared with the engine's buffers. A forged descriptor with a
// valid checksum and sizes that contradict each other is not detected.
#pragma once

#include "winnow/stream.hpp"

namespace winnow {

using Status = ap_uint<8>;

inline ap_uint<64> update_checksum(ap_uint<64> checksum, ap_uint<64> word) {
#pragma HLS inline
  return ((checksum << 1) | (checksum >> 63)) ^ word;
}

// Read N words at `address`; true if the last one is the checksum of the others.
template <int N>
bool read_checked(Port<Word>& memory, Address address, Word (&words)[N]) {
#pragma HLS inline
  memory.read_request(address, N);
  ap_uint<64> checksum = 0, before = 0;
each_word:
  for (int i = 0; i < N; i++) {
#pragma HLS pipeline II = 1
    Word word = memory.read();
    before = checksum;
    checksum = update_checksum(checksum, word);
  shift:
    for (int j = 0; j < N - 1; j++) {
#pragma HLS unroll
      words[j] = words[j + 1];
    }
    words[N - 1] = word;
  }
  return before == words[N - 1];
}

inline Status check_header(const Word (&words)[kHeaderWords], bool intact) {
#pragma HLS inline
  ap_uint<32> magic = ap_uint<32>(words[0]);
  ap_uint<16> version = ap_uint<16>(words[0] >> 32);
  ap_uint<16> num_layers = ap_uint<16>(words[0] >> 48);
  if (magic != kMagic) return kStatusBadMagic;
  if (version != kVersion) return kStatusBadVersion;
  if (!intact) return kStatusBadChecksum;
  if (words[1] != Word(kSignature)) return kStatusWrongEngine;
  if (num_layers == 0 || num_layers > kMaxLayers) return kStatusBadLayerCount;
  return kStatusOk;
}

inline Status check_layer(const Layer& layer, bool intact) {
#pragma HLS inline
  if (!intact) return kStatusBadChecksum;
  if (layer.op > kOpDense) return kStatusBadOpcode;
  bool is_empty = layer.keep == 0 || layer.sub_rows == 0 || layer.steps == 0 || layer.blocks == 0 ||
                  layer.rows == 0 || layer.groups == 0 || layer.strip_rows == 0 ||
                  layer.strip_groups == 0 || layer.num_strips == 0 || layer.strip_beats == 0 ||
                  layer.groups_full == 0;
  bool is_large = layer.keep > kSubRow || layer.steps > kWWords || layer.v_words > kVWords ||
                  layer.out_tiles > kOutTiles || layer.v_limit > 127;
  bool is_wide = layer.op == kOpWinograd && layer.strip_groups > (kLinePixels - 2) / (kM * kPt);
  return is_empty || is_large || is_wide ? kStatusBadSize : kStatusOk;
}

}  // namespace winnow
