// SPDX-License-Identifier: Apache-2.0
// Processes of a dataflow region as coroutines, channels that are as deep as declared. A process
// runs until a channel stops it. What it sends leaves it WINNOW_HOLD iterations later, or when a
// half of a bank changes hands, a response is awaited or it ends: so does a pipeline of as many
// stages that stands still while its next input is missing. An iteration uses a channel once at
// most, so that the busiest channel counts them. When no process can go on, the ring of those that
// wait for one another is the last line on stderr.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace bounded {

constexpr std::size_t kStackBytes = 1 << 18;
constexpr int kDeadlock = 4;  // exit code

// A send not made yet: `make` tells whether it could be made.
struct Held {
  std::string channel;
  long due;  // iteration
  std::function<bool()> make;
};

struct Process {
  std::string name;
  std::vector<std::string> channels;
  std::function<void()> body;
  ucontext_t context;
  bool is_done = false;
  std::string channel, waits_for;  // while it waits
  std::deque<Held> held;
  long iteration = 0;
};

struct Region {
  std::vector<std::unique_ptr<Process>> processes;
  std::vector<std::unique_ptr<char[]>> stacks;
  Process* current = nullptr;
  ucontext_t home;
  long steps = 0;  // what any process has achieved

  static Region& get() {
    static Region region;
    return region;
  }
};

inline int hold() {
  static const char* text = std::getenv("WINNOW_HOLD");
  static const int words = text ? std::atoi(text) : 0;
  return words;
}

// The depth of a stream: as declared, or that of WINNOW_DEPTH, "STREAM=DEPTH".
inline int depth_of(const std::string& stream, int declared) {
  static const char* text = std::getenv("WINNOW_DEPTH");
  static const std::string given = text ? text : "";
  const std::size_t split = given.find('=');
  if (split == std::string::npos || given.substr(0, split) != stream) return declared;
  return std::atoi(given.c_str() + split + 1);
}

[[noreturn]] inline void stop(const std::string& message) {
  std::fflush(stdout);
  std::fprintf(stderr, "%s\n", message.c_str());
  std::_Exit(kDeadlock);
}

// Back to the scheduler: `channel` must give way first.
inline void wait(const std::string& channel, const char* reason) {
  Region& region = Region::get();
  if (!region.current) {
    stop("deadlock: 'control' waits for " + std::string(reason) + " '" + channel + "'");
  }
  region.current->channel = channel;
  region.current->waits_for = reason;
  swapcontext(&region.current->context, &region.home);
}

inline void achieve() {
  Region::get().steps++;
}

inline void release_one(Process& process) {
  while (!process.held.front().make()) wait(process.held.front().channel, "space in stream");
  process.held.pop_front();
  achieve();
}
inline void release_all() {
  Process* process = Region::get().current;
  while (process && !process->held.empty()) release_one(*process);
}

// The running process has used one of its channels `count` times.
inline void count_use(long count) {
  Process* process = Region::get().current;
  if (!process || hold() == 0) return;
  process->iteration = std::max(process->iteration, count);
  while (!process->held.empty() && process->held.front().due <= process->iteration) {
    release_one(*process);
  }
}

// Sends, now or later, the word number `count` of a channel.
template <class Send>
void send(const std::string& channel, long count, Send make) {
  Process* process = Region::get().current;
  if (process && hold() > 0) {
    count_use(count);
    process->held.push_back({channel, process->iteration + hold(), std::move(make)});
    return;
  }
  while (!make()) wait(channel, "space in stream");
  achieve();
}

inline void enter() {
  Process& process = *Region::get().current;
  process.body();
  release_all();
  process.is_done = true;
  achieve();
  swapcontext(&process.context, &Region::get().home);
}

inline void spawn(const char* name, std::vector<std::string> channels, std::function<void()> body) {
  Region& region = Region::get();
  const std::size_t number = region.processes.size();
  if (number == region.stacks.size()) region.stacks.emplace_back(new char[kStackBytes]);
  region.processes.emplace_back(new Process);
  Process& process = *region.processes.back();
  process.name = name;
  process.channels = std::move(channels);
  process.body = std::move(body);
  getcontext(&process.context);
  process.context.uc_stack.ss_sp = region.stacks[number].get();
  process.context.uc_stack.ss_size = kStackBytes;
  process.context.uc_link = nullptr;
  makecontext(&process.context, enter, 0);
}

// The other process at a channel that `process` waits for.
inline const Process* peer_of(const Process& process) {
  for (const auto& other : Region::get().processes) {
    if (other.get() == &process) continue;
    for (const std::string& channel : other->channels) {
      const std::string whole = process.channel.substr(0, process.channel.find('['));
      if (channel == process.channel || channel == whole) return other.get();
    }
  }
  return nullptr;
}

// From a process that waits along those it waits for: the ring, or the way to who is done.
inline std::string ring() {
  std::vector<const Process*> path;
  const Process* process = nullptr;
  for (const auto& any : Region::get().processes) {
    if (!process && !any->is_done) process = any.get();
  }
  std::size_t first = 0;
  while (process && !process->is_done) {
    for (first = 0; first < path.size() && path[first] != process;) first++;
    if (first < path.size()) break;
    path.push_back(process);
    process = peer_of(*process);
  }
  std::string text;
  for (std::size_t i = process && !process->is_done ? first : 0; i < path.size(); i++) {
    text += text.empty() ? "" : "; ";
    text +=
        "'" + path[i]->name + "' waits for " + path[i]->waits_for + " '" + path[i]->channel + "'";
  }
  if (!process) text += ", which no process has";
  if (process && process->is_done) text += "; '" + process->name + "' is done";
  return "deadlock: " + text;
}

// Runs all processes of the region to their ends.
inline void run() {
  Region& region = Region::get();
  for (bool all_done = false; !all_done;) {
    const long before = region.steps;
    all_done = true;
    for (auto& process : region.processes) {
      if (process->is_done) continue;
      all_done = false;
      region.current = process.get();
      swapcontext(&region.home, &process->context);
    }
    region.current = nullptr;
    if (!all_done && region.steps == before) stop(ring());
  }
  region.processes.clear();
}

// Names and depths of channels, single or in an array.
template <class Channel>
void set(Channel& channel, const std::string& name, int depth) {
  channel.set(name, depth_of(name.substr(0, name.find('[')), depth));
}
template <class Channel, std::size_t N>
void set(Channel (&channels)[N], const std::string& name, int depth) {
  for (std::size_t i = 0; i < N; i++) set(channels[i], name + "[" + std::to_string(i) + "]", depth);
}

}  // namespace bounded
