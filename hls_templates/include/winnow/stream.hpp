// SPDX-License-Identifier: Apache-2.0
// Channels between processes, by the names of the vendor's library:
//   Stream<T>    FIFO with blocking read and write
//   Bank<T, N>   ping-pong block of N words: the writer fills one half while the reader uses the
//                other; whole halves change hands
//   Port<T>      AXI4 master with explicit burst requests
// and Ram<T, N>, a local memory whose accesses to one address lie at least alpha cycles apart.
// Each back end (Vitis HLS, host simulation, openhls) supplies these headers on its include path,
// so that no file of the engine knows which one compiles it.
#pragma once

#include <hls_burst_maxi.h>
#include <hls_ram.h>
#include <hls_stream.h>
#include <hls_streamofblocks.h>

#include "winnow/types.hpp"

namespace winnow {

template <class T>
using Stream = hls::stream<T>;
template <class T>
using Port = hls::burst_maxi<T>;
template <class T, int N>
using Ram = hls::ram<T, N>;
template <class Block>
using Bank = hls::stream_of_blocks<Block>;
template <class Block>
using ReadLock = hls::read_lock<Block>;
template <class Block>
using WriteLock = hls::write_lock<Block>;

// The locks of N banks that change hands together.
template <class Lock, class Block, int N>
struct Locks {
  Lock first;
  Locks<Lock, Block, N - 1> rest;

  explicit Locks(Bank<Block>* banks) : first(banks[0]), rest(banks + 1) {}

  // Word `address` of every bank.
  template <class Index, class T>
  void read(Index address, T* words) {
#pragma HLS inline
    words[0] = first[address];
    rest.read(address, words + 1);
  }
  // Word `address` of bank `number`.
  template <class Index, class T>
  void write(Index address, unsigned number, const T& word, unsigned tried = 0) {
#pragma HLS inline
    if (number == tried) first[address] = word;
    rest.write(address, number, word, tried + 1);
  }
};
template <class Lock, class Block>
struct Locks<Lock, Block, 0> {
  explicit Locks(Bank<Block>*) {}

  template <class Index, class T>
  void read(Index, T*) {}
  template <class Index, class T>
  void write(Index, unsigned, const T&, unsigned) {}
};

}  // namespace winnow
