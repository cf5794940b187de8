// SPDX-License-Identifier: Apache-2.0
// The two functions of liblz4 that Verilator's FST writer calls, so that waveforms need no library
// of the system. They write LZ4 blocks: sequences of literals and of matches of 4 bytes or more, at
// most 65535 bytes back, found through a table of hashed 4-byte words (github.com/lz4/lz4,
// doc/lz4_Block_format.md). Sizes are in bytes.
#ifndef WINNOW_FST_LZ4_H
#define WINNOW_FST_LZ4_H

#include <cstdint>
#include <cstring>
#include <vector>

namespace winnow_fst {

constexpr int kMinMatch = 4;
constexpr int kEndLiterals = 5;  // the last 5 bytes of a block are literals
constexpr int kEndMatch = 12;    // and no match starts in its last 12
constexpr int kMaxOffset = 65535;
constexpr int kHashBits = 12;

inline std::uint32_t load_word(const char* place) {
  std::uint32_t word;
  std::memcpy(&word, place, sizeof word);
  return word;
}

// A length that its four bits of the token cannot hold goes on in bytes of up to 255.
inline char* put_length(char* out, int length) {
  for (length -= 15; length >= 255; length -= 255) *out++ = char(255);
  *out++ = char(length);
  return out;
}

// Literals, then a match of `match` bytes, `offset` back; the last sequence has none (match 0).
inline char* put_sequence(char* out, const char* literals, int count, int match, int offset) {
  int extra = match ? match - kMinMatch : 0;
  *out++ = char((count < 15 ? count : 15) << 4 | (extra < 15 ? extra : 15));
  if (count >= 15) out = put_length(out, count);
  std::memcpy(out, literals, count);
  out += count;
  if (match == 0) return out;
  *out++ = char(offset & 255);
  *out++ = char(offset >> 8);
  return extra >= 15 ? put_length(out, extra) : out;
}

}  // namespace winnow_fst

// Every 255 bytes of literals cost one more, and a sequence with a match is never longer than it.
inline int LZ4_compressBound(int size) {
  return size + size / 255 + 16;
}

// Returns the size of the block, or 0 if `capacity` is less than LZ4_compressBound(size).
inline int LZ4_compress_default(const char* source, char* target, int size, int capacity) {
  using namespace winnow_fst;
  if (capacity < LZ4_compressBound(size)) return 0;
  std::vector<int> table(1 << kHashBits, -1);  // where a word was last seen
  char* out = target;
  int literals = 0;  // the first byte that no sequence holds yet
  for (int here = 0; here < size - kEndMatch;) {
    std::uint32_t word = load_word(source + here);
    int& entry = table[word * 2654435761u >> (32 - kHashBits)];
    int before = entry;
    entry = here;
    if (before < 0 || here - before > kMaxOffset || load_word(source + before) != word) {
      here++;
      continue;
    }
    int match = kMinMatch, limit = size - kEndLiterals - here;
    while (match < limit && source[before + match] == source[here + match]) match++;
    out = put_sequence(out, source + literals, here - literals, match, here - before);
    here += match;
    literals = here;
  }
  out = put_sequence(out, source + literals, size - literals, 0, 0);
  return int(out - target);
}

#endif
