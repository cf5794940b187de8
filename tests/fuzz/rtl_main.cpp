// SPDX-License-Identifier: Apache-2.0
// Drives all ready/valid channels of a batch of designs at once, with random stalls.
//   rtl_main TOKENS STALL_PERCENT SEED CYCLES
// TOKENS: lines "input hex"; prints lines "output hex", and "left input count" for what was not
// taken. Runs until nothing has moved for a while, for CYCLES cycles at most. Generated:
// NUM_INPUTS, NUM_OUTPUTS and NUM_WORDS, the 32-bit words of a token, in ports.hpp.
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <string>

#include "Vbatch.h"
#include "ports.hpp"
#include "verilated.h"

namespace {

using Token = std::array<std::uint32_t, NUM_WORDS>;
constexpr long kReset = 3, kIdle = 400;

Token parse(const std::string& hex) {
  Token token{};
  for (std::size_t i = 0; i < hex.size(); i++) {
    const std::size_t place = hex.size() - 1 - i;
    const std::uint32_t digit = hex[i] <= '9' ? hex[i] - '0' : hex[i] - 'a' + 10;
    token[place / 8] |= digit << (4 * (place % 8));
  }
  return token;
}

std::uint32_t state;
bool stalled(unsigned percent) {
  state = state * 1664525u + 1013904223u;
  return (state >> 8) % 100 < percent;
}

std::deque<Token> tokens[NUM_INPUTS];

}  // namespace

int main(int, char** arguments) {
  std::ifstream file(arguments[1]);
  std::string hex;
  for (int input; file >> input >> hex;) tokens[input].push_back(parse(hex));
  const unsigned percent = std::atoi(arguments[2]);
  state = std::atoi(arguments[3]);
  const long limit = std::atol(arguments[4]);
  Verilated::randReset(2);
  Verilated::randSeed(std::atoi(arguments[3]) + 1);

  Vbatch top;
  top.clk = 0;
  long cycle = 0;
  for (long idle = 0; cycle < limit && idle < kIdle; cycle++, idle++) {
    const bool reset = cycle < kReset;
    top.rst = reset;
    for (int i = 0; i < NUM_INPUTS; i++) {
      // A token that is offered stays until it is taken.
      const bool offered = top.in_vld[i];
      top.in_vld[i] = !reset && !tokens[i].empty() && (offered || !stalled(percent));
      if (top.in_vld[i]) {
        for (int w = 0; w < NUM_WORDS; w++) top.in_data[i][w] = tokens[i].front()[w];
      }
    }
    for (int i = 0; i < NUM_OUTPUTS; i++) top.out_rdy[i] = !reset && !stalled(percent);
    top.eval();
    bool taken[NUM_INPUTS];
    for (int i = 0; i < NUM_INPUTS; i++) taken[i] = top.in_vld[i] && top.in_rdy[i];
    for (int i = 0; i < NUM_OUTPUTS; i++) {
      if (!top.out_vld[i] || !top.out_rdy[i]) continue;
      std::printf("%d ", i);
      for (int w = NUM_WORDS; w-- > 0;) std::printf("%08x", unsigned(top.out_data[i][w]));
      std::printf("\n");
      idle = 0;
    }
    top.clk = 1;
    top.eval();
    top.clk = 0;
    for (int i = 0; i < NUM_INPUTS; i++) {
      if (!taken[i]) continue;
      tokens[i].pop_front();
      top.in_vld[i] = 0;
      idle = 0;
    }
  }
  for (int i = 0; i < NUM_INPUTS; i++) std::printf("left %d %zu\n", i, tokens[i].size());
  return 0;
}
