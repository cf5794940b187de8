// SPDX-License-Identifier: Apache-2.0
// A bank of exactly two blocks; same names as the vendor's library.
#pragma once

#include <type_traits>

#include "bounded.hpp"

namespace hls {

template <class Block, int DEPTH = 2>
class stream_of_blocks {
 public:
  using Element = std::remove_extent_t<Block>;
  static constexpr std::size_t kSize = std::extent<Block>::value;
  static_assert(DEPTH == 2, "banks have two halves");

  stream_of_blocks() : words_(new Element[2 * kSize]()) {}
  stream_of_blocks(const stream_of_blocks&) = delete;
  void set(const std::string& name, int) { name_ = name; }

  Element* take_empty() {
    bounded::release_all();
    while (taken_ == 2) bounded::wait(name_, "an empty half of bank");
    taken_++;
    return half(write_half_);
  }
  void give_full() {
    bounded::release_all();
    full_++;
    write_half_ = !write_half_;
    bounded::achieve();
  }
  Element* take_full() {
    bounded::release_all();
    while (full_ == 0) bounded::wait(name_, "a full half of bank");
    return half(read_half_);
  }
  void give_empty() {
    bounded::release_all();
    full_--;
    taken_--;
    read_half_ = !read_half_;
    bounded::achieve();
  }

 private:
  Element* half(bool upper) { return words_.get() + (upper ? kSize : 0); }

  std::unique_ptr<Element[]> words_;
  std::string name_ = "without a name";
  int taken_ = 0, full_ = 0;
  bool write_half_ = false, read_half_ = false;
};

template <class Block>
class block_lock {
 public:
  using Channel = stream_of_blocks<Block>;
  using Element = typename Channel::Element;

  block_lock(const block_lock&) = delete;
  block_lock& operator=(const block_lock&) = delete;

  template <class Index>
  Element& operator[](const Index& index) {
    const std::size_t i = static_cast<std::size_t>(index);
    if (i >= Channel::kSize) bounded::stop("error: index outside of a block");
    return block_[i];
  }

 protected:
  block_lock(Channel& channel, Element* block) : channel_(channel), block_(block) {}

  Channel& channel_;
  Element* block_;
};

template <class Block>
class write_lock : public block_lock<Block> {
 public:
  explicit write_lock(stream_of_blocks<Block>& channel)
      : block_lock<Block>(channel, channel.take_empty()) {}
  ~write_lock() { this->channel_.give_full(); }
};

template <class Block>
class read_lock : public block_lock<Block> {
 public:
  explicit read_lock(stream_of_blocks<Block>& channel)
      : block_lock<Block>(channel, channel.take_full()) {}
  ~read_lock() { this->channel_.give_empty(); }
};

}  // namespace hls
