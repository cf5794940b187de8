// SPDX-License-Identifier: Apache-2.0
// Packs standard input as Verilator's FST writer does, with `lz4` or `zlib`, onto standard output.
// Exits with 3 when a function writes past the bound that it has stated.
#include <lz4.h>
#include <zlib.h>

#include <cstdio>
#include <iterator>
#include <string>
#include <vector>

constexpr unsigned char kGuard = 0xa5;

int main(int, char** arguments) {
  std::vector<unsigned char> source, target;
  for (int byte; (byte = std::getchar()) != EOF;)
    source.push_back(static_cast<unsigned char>(byte));
  bool lz4 = std::string(arguments[1]) == "lz4";
  uLongf bound = lz4 ? LZ4_compressBound(int(source.size())) : compressBound(source.size());
  target.assign(bound + 64, kGuard);
  uLongf size = bound;
  if (lz4) {
    size = LZ4_compress_default(reinterpret_cast<const char*>(source.data()),
                                reinterpret_cast<char*>(target.data()), int(source.size()),
                                int(bound));
  } else if (compress2(target.data(), &size, source.data(), source.size(), 9) != Z_OK) {
    return 2;
  }
  for (uLongf i = size; i < target.size(); i++) {
    if (i >= bound && target[i] != kGuard) return 3;
  }
  std::fwrite(target.data(), 1, size, stdout);
}
