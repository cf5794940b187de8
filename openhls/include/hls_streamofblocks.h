// SPDX-License-Identifier: Apache-2.0
// hls::stream_of_blocks for openhls: a bank of two halves. A lock takes a half when it is made and
// hands it over when it ends; between the two its elements are read or written, one per iteration.
#pragma once

#include <openhls_channel.h>

namespace hls {

template <class Block, int DEPTH = 2>
class stream_of_blocks;

template <class T, unsigned long N, int DEPTH>
class stream_of_blocks<T[N], DEPTH> {
 public:
  using Element = T;
  static constexpr int kElements = N;
  stream_of_blocks() {}
  stream_of_blocks(const stream_of_blocks&) = delete;
  stream_of_blocks& operator=(const stream_of_blocks&) = delete;

 private:
  char identity_;
};

template <class Block>
class block_lock {
 public:
  using Bank = stream_of_blocks<Block>;
  explicit block_lock(Bank& bank) : bank_(&bank) {
    openhls::receive<ap_uint<1>>(bank_, kOpenhlsAcquire);
  }
  block_lock(const block_lock&) = delete;
  block_lock& operator=(const block_lock&) = delete;
  ~block_lock() { openhls::send(bank_, kOpenhlsRelease, ap_uint<1>(1)); }

 protected:
  Bank* bank_;
};

template <class Block>
class read_lock : public block_lock<Block> {
 public:
  using Element = typename block_lock<Block>::Bank::Element;
  using block_lock<Block>::block_lock;
  template <class Index>
  Element operator[](Index index) const {
    return openhls::read<Element>(this->bank_, block_lock<Block>::Bank::kElements,
                                  (unsigned long)(index));
  }
};

template <class Block>
class write_lock : public block_lock<Block> {
 public:
  using Element = typename block_lock<Block>::Bank::Element;
  using block_lock<Block>::block_lock;
  struct Place {
    const void* bank;
    unsigned long address;
    void operator=(const Element& x) const {
      openhls::write(bank, block_lock<Block>::Bank::kElements, address, x);
    }
  };
  template <class Index>
  Place operator[](Index index) const {
    return Place{this->bank_, (unsigned long)(index)};
  }
};

}  // namespace hls
