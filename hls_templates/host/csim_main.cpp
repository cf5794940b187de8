// SPDX-License-Identifier: Apache-2.0
// Host test bench: starts the engine on one input after the other and writes the feature memory
// after each.
//
//   csim PROGRAM WEIGHTS IMAGES OUTPUT FEATURE_WORDS INPUT_BASE INPUT_WORDS
//
// IMAGES holds INPUT_WORDS 8-byte words per start: an image, or the memory from the first image to
// the last. Prints one line "status CODE LAYERS IMAGES" per start.
// Exit code 0 when all ran, 2 when the engine reported an error, 3 on an illegal access.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "test_port.hpp"
#include "winnow/engine.hpp"

// What is done with every port: see WINNOW_PORTS in abi.hpp.
#define PARAMETER(index, name, master, bits, region, offset) hls::burst_maxi<ap_uint<bits>> name,
#define OPEN(index, name, master, bits, region, offset) \
  hls::burst_maxi<ap_uint<bits>> name##_port =          \
      test_port::open<ap_uint<bits>>(#name, region.data(), region.size());
#define PASS(index, name, ...) name##_port,
#define AND_IDLE(index, name, ...) &&test_port::is_idle(name##_port, 0)

extern "C" void winnow_engine(WINNOW_PORTS(PARAMETER, PARAMETER) ap_uint<32>* status,
                              const ap_uint<32>* program_words, const ap_uint<32>* weight_beats,
                              const ap_uint<32>* feature_words);

namespace {

std::vector<std::uint64_t> read_words(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "error: cannot read %s\n", path);
    std::exit(1);
  }
  std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<std::uint64_t> words((bytes.size() + 7) / 8);
  for (std::size_t i = 0; i < bytes.size(); i++) {
    words[i / 8] |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes[i]))
                    << (8 * (i % 8));
  }
  return words;
}

template <class T>
std::vector<T> to_beats(const std::vector<std::uint64_t>& words, int words_per_beat) {
  std::vector<T> beats(words.size() / words_per_beat, T(0));
  for (std::size_t i = 0; i < beats.size() * words_per_beat; i++) {
    beats[i / words_per_beat] |= T(words[i]) << (64 * int(i % words_per_beat));
  }
  return beats;
}

// AMD's cosimulation copies as much of a memory as the pragmas of the ports say, so there must be
// as much; the engine is told what there is of it.
template <class T>
void grow(std::vector<T>& memory, const char* name, std::size_t copied) {
  if (test_port::has_size<T>()) return;
  if (memory.size() > copied) {
    std::fprintf(stderr, "note: cosimulation copies %zu of %zu %s\n", copied, memory.size(), name);
  }
  memory.resize(std::max(memory.size(), copied), T(0));
}

}  // namespace

int main(int argc, char** argv) {
  using winnow::Beat;
  using winnow::Word;
  if (argc != 8) {
    std::fprintf(
        stderr, "usage: csim PROGRAM WEIGHTS IMAGES OUTPUT FEATURE_WORDS INPUT_BASE INPUT_WORDS\n");
    return 1;
  }
  std::vector<Word> program = to_beats<Word>(read_words(argv[1]), 1);
  std::vector<Beat> weights = to_beats<Beat>(read_words(argv[2]), winnow::kAxiBits / 64);
  const std::vector<std::uint64_t> images = read_words(argv[3]);
  std::ofstream output(argv[4], std::ios::binary);
  const std::size_t feature_words = std::stoull(argv[5]);
  const std::size_t input_base = std::stoull(argv[6]), input_words = std::stoull(argv[7]);
  const ap_uint<32> words = program.size(), beats = weights.size(), features_end = feature_words;
  grow(program, "words of the program", winnow::kProgramDepth);
  grow(weights, "beats of weights", winnow::kWeightsDepth);

  int failures = 0;
  for (std::size_t image = 0; image < images.size() / input_words; image++) {
    // What no one wrote must not matter: memory starts with a pattern, not with zeros.
    std::vector<Word> features(feature_words, Word(0xA5C3965A3CF00F69ull));
    for (std::size_t i = 0; i < input_words; i++) {
      features[input_base + i] = images[image * input_words + i];
    }
    grow(features, "words of features", winnow::kFeaturesDepth);
    ap_uint<32> status = 0xFFFFFFFF;
    WINNOW_PORTS(OPEN, OPEN)
    ap_uint<32>* const result = &status;
    winnow_engine(WINNOW_PORTS(PASS, PASS) result, &words, &beats, &features_end);
    const unsigned code = winnow::status_code(status.to_uint());
    std::printf("status %u %u %u\n", code, winnow::status_layers(status.to_uint()),
                winnow::status_images(status.to_uint()));
    if (code != winnow::kStatusOk) failures++;
    if (!(true WINNOW_PORTS(AND_IDLE, AND_IDLE))) {
      std::fprintf(stderr, "error: a port has an unfinished burst\n");
      return 3;
    }
    for (std::size_t i = 0; i < feature_words; i++) {
      const std::uint64_t value = features[i].to_uint64();
      output.write(reinterpret_cast<const char*>(&value), 8);
    }
  }
  output.flush();
  if (!output) {
    std::fprintf(stderr, "error: cannot write %s\n", argv[4]);
    return 1;
  }
  return failures ? 2 : 0;
}
