// SPDX-License-Identifier: Apache-2.0
// Host simulation of a stream of blocks; same names as the vendor's library. Processes run one
// after the other, so that any number of blocks can wait.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <type_traits>

namespace hls {

template <class Block, int DEPTH = 2>
class stream_of_blocks {
 public:
  using Element = std::remove_extent_t<Block>;
  using Storage = std::unique_ptr<Element[]>;
  static constexpr std::size_t kSize = std::extent<Block>::value;

  bool empty() const { return blocks_.empty(); }
  void push(Storage block) { blocks_.push_back(std::move(block)); }
  Storage pop() {
    if (blocks_.empty()) {
      std::fprintf(stderr, "error: a process reads a block that was never written\n");
      std::exit(3);
    }
    Storage block = std::move(blocks_.front());
    blocks_.pop_front();
    return block;
  }
  Storage make() {
    if (free_.empty()) return Storage(new Element[kSize]());
    Storage block = std::move(free_.back());
    free_.pop_back();
    return block;
  }
  void recycle(Storage block) { free_.push_back(std::move(block)); }

 private:
  std::deque<Storage> blocks_, free_;
};

template <class Block>
class block_lock {
 public:
  using Channel = stream_of_blocks<Block>;
  using Element = typename Channel::Element;

  block_lock(Channel& channel, typename Channel::Storage block)
      : channel_(channel), block_(std::move(block)) {}
  block_lock(const block_lock&) = delete;
  block_lock& operator=(const block_lock&) = delete;

  template <class Index>
  Element& operator[](const Index& index) {
    std::size_t i = static_cast<std::size_t>(index);
    if (i >= Channel::kSize) {
      std::fprintf(stderr, "error: index %zu outside a block of %zu words\n", i, Channel::kSize);
      std::exit(3);
    }
    return block_[i];
  }

 protected:
  Channel& channel_;
  typename Channel::Storage block_;
};

template <class Block>
class write_lock : public block_lock<Block> {
 public:
  explicit write_lock(stream_of_blocks<Block>& channel)
      : block_lock<Block>(channel, channel.make()) {}
  ~write_lock() { this->channel_.push(std::move(this->block_)); }
};

template <class Block>
class read_lock : public block_lock<Block> {
 public:
  explicit read_lock(stream_of_blocks<Block>& channel)
      : block_lock<Block>(channel, channel.pop()) {}
  ~read_lock() { this->channel_.recycle(std::move(this->block_)); }
};

}  // namespace hls
