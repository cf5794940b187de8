// SPDX-License-Identifier: Apache-2.0
// A FIFO of exactly its declared depth; same calls as the vendor's class.
#pragma once

#include "bounded.hpp"

namespace hls {

template <class T, int DEPTH = 2>
class stream {
 public:
  stream() {}
  stream(const stream&) = delete;
  ~stream() {
    if (!words_.empty())
      std::fprintf(stderr, "WARNING: %s contains leftover data\n", name_.c_str());
  }

  void set(const std::string& name, int depth) {
    name_ = name;
    depth_ = depth;
  }
  T read() {
    while (words_.empty()) bounded::wait(name_, "data on stream");
    T word = words_.front();
    words_.pop_front();
    bounded::achieve();
    bounded::count_use(++reads_);
    return word;
  }
  void write(const T& word) {
    bounded::send(name_, ++writes_, [this, word] {
      if (words_.size() >= depth_) return false;
      words_.push_back(word);
      return true;
    });
  }

 private:
  std::deque<T> words_;
  std::string name_ = "without a name";
  std::size_t depth_ = DEPTH;
  long reads_ = 0, writes_ = 0;
};

}  // namespace hls
