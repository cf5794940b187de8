// SPDX-License-Identifier: Apache-2.0
// Drives the ready/valid channels of a Verilated module from a file of tokens, with random stalls.
//   rtl_main TOKENS STALL_PERCENT SEED LIMIT
// TOKENS: lines "channel hex"; prints lines "channel hex", and "cycles N" from the first token in
// to the last one out. Generated: MODEL, INPUTS(F), OUTPUTS(F), in ports.hpp.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <map>
#include <string>

#include "ports.hpp"
#include "verilated.h"

namespace {

template <class T>
void set(T& port, const std::string& hex) {
  port = T(std::stoull(hex, nullptr, 16));
}
template <std::size_t N>
void set(VlWide<N>& port, const std::string& hex) {
  for (std::size_t i = 0; i < N; i++) {
    std::size_t end = hex.size() > 8 * i ? hex.size() - 8 * i : 0;
    std::size_t begin = end > 8 ? end - 8 : 0;
    port[i] = end == 0 ? 0 : std::stoul(hex.substr(begin, end - begin), nullptr, 16);
  }
}
template <class T>
std::string get(const T& port) {
  char text[32];
  std::snprintf(text, sizeof(text), "%llx", (unsigned long long)(port));
  return text;
}
template <std::size_t N>
std::string get(const VlWide<N>& port) {
  std::string hex;
  for (std::size_t i = N; i-- > 0;) {
    char text[16];
    std::snprintf(text, sizeof(text), "%08x", unsigned(port[i]));
    hex += text;
  }
  return hex;
}

std::uint32_t state;
bool stalled(unsigned percent) {
  state = state * 1664525u + 1013904223u;
  return (state >> 8) % 100 < percent;
}

}  // namespace

int main(int, char** arguments) {
  std::map<std::string, std::deque<std::string>> tokens;
  std::ifstream file(arguments[1]);
  for (std::string channel, hex; file >> channel >> hex;) tokens[channel].push_back(hex);
  const unsigned percent = std::atoi(arguments[2]);
  state = std::atoi(arguments[3]);
  const long limit = std::atol(arguments[4]);

  MODEL top;
  top.clk = 0;
  top.rst = 1;
  long first = -1, last = 0, idle = 0;
  for (long cycle = 0; cycle < limit && idle < 500; cycle++) {
    top.rst = cycle < 3;
#define DRIVE(name)                                                      \
  if (!tokens[#name].empty() && (top.name##_vld || !stalled(percent))) { \
    top.name##_vld = 1;                                                  \
    set(top.name##_data, tokens[#name].front());                         \
  } else {                                                               \
    top.name##_vld = 0;                                                  \
  }
    INPUTS(DRIVE)
#define ACCEPT(name) top.name##_rdy = !stalled(percent);
    OUTPUTS(ACCEPT)
    top.eval();
    idle++;
    bool running = !top.rst;
#define PRINT(name)                                              \
  if (running && top.name##_vld && top.name##_rdy) {             \
    std::printf("%s %s\n", #name, get(top.name##_data).c_str()); \
    last = cycle;                                                \
    idle = 0;                                                    \
  }
    OUTPUTS(PRINT)
    bool taken[] = {
#define TAKEN(name) running &&top.name##_vld &&top.name##_rdy,
        INPUTS(TAKEN) false};
    top.clk = 1;
    top.eval();
    top.clk = 0;
    int i = 0;
#define ADVANCE(name)             \
  if (taken[i++]) {               \
    tokens[#name].pop_front();    \
    top.name##_vld = 0;           \
    idle = 0;                     \
    if (first < 0) first = cycle; \
  }
    INPUTS(ADVANCE)
  }
  std::size_t unread = 0;
  for (const auto& entry : tokens) unread += entry.second.size();
  std::printf("cycles %ld unread %zu\n", last - first + 1, unread);
  return 0;
}
