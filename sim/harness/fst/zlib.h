// SPDX-License-Identifier: Apache-2.0
// The two functions of zlib that Verilator's FST writer calls, so that waveforms need no library of
// the system. A stream holds the bytes as they are, in stored blocks (RFC 1950, RFC 1951). The
// writer packs only times, widths and initial values with it and then keeps what is shorter, the
// bytes themselves; the changes of values, all but a few percent of a file, go through lz4.h.
#ifndef WINNOW_FST_ZLIB_H
#define WINNOW_FST_ZLIB_H

#include <cstdint>
#include <cstring>
#include <initializer_list>

using Bytef = unsigned char;
using uLong = unsigned long;
using uLongf = unsigned long;
constexpr int Z_OK = 0, Z_BUF_ERROR = -5;

// A block of up to 65535 bytes costs 5; the stream 2 in front and 4 behind.
inline uLong compressBound(uLong size) {
  return size + 5 * (size / 65535 + 1) + 6;
}

inline int compress2(Bytef* target, uLongf* target_size, const Bytef* source, uLong size, int) {
  if (*target_size < compressBound(size)) return Z_BUF_ERROR;
  Bytef* out = target;
  *out++ = 0x78;  // deflate with a window of 32 KiB
  *out++ = 0x01;  // makes the two a multiple of 31
  std::uint32_t low = 1, high = 0;
  for (uLong i = 0; i < size; i++) {
    low = (low + source[i]) % 65521;
    high = (high + low) % 65521;
  }
  bool last = false;
  for (uLong begin = 0; !last; begin += 65535) {
    last = size - begin <= 65535;
    uLong count = last ? size - begin : 65535;
    const uLong head[] = {last, count & 255, count >> 8, ~count & 255, ~count >> 8 & 255};
    for (uLong part : head) *out++ = Bytef(part);
    std::memcpy(out, source + begin, count);
    out += count;
  }
  for (std::uint32_t half : {high, low}) {
    *out++ = Bytef(half >> 8);
    *out++ = Bytef(half);
  }
  *target_size = uLong(out - target);
  return Z_OK;
}

#endif
