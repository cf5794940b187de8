// SPDX-License-Identifier: Apache-2.0
// hls::stream of host simulation: processes run one after the other, so that a FIFO holds all that
// one of them sends of a layer. It lies in chunks, which are given back as they are read. Same
// calls, and the same words about tokens that are left, as AMD's hls_stream.h; reading an empty one
// ends the program.
#pragma once

#include <cxxabi.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <type_traits>
#include <typeinfo>

namespace hls {

template <class T>
class stream {
 public:
  stream() {}
  explicit stream(const char* name) : name_(name) {}
  stream(const stream&) = delete;
  stream& operator=(const stream&) = delete;
  ~stream() {
    if (!empty()) {
      std::printf("WARNING: Hls::stream '%s' contains leftover data\n", name().c_str());
    }
    while (first_) drop_first();
  }

  bool empty() const { return read_ == write_; }
  void write(const T& token) {
    if (write_ == write_end_) append();
    new (write_++) T(token);
  }
  T read() {
    if (empty()) {
      std::fflush(stdout);
      std::fprintf(stderr, "error: stream '%s' is read while empty\n", name().c_str());
      std::exit(3);
    }
    const T token = *read_++;
    if (read_ == read_end_) end_chunk();
    return token;
  }
  void read(T& token) { token = read(); }
  void operator<<(const T& token) { write(token); }
  void operator>>(T& token) { read(token); }

 private:
  static_assert(std::is_trivially_copyable<T>::value, "tokens are plain values");
  static constexpr std::size_t kBytes = 1 << 15;  // of a chunk
  static constexpr std::size_t kTokens = sizeof(T) < kBytes ? kBytes / sizeof(T) : 1;
  struct Chunk {
    Chunk* next;
    alignas(T) unsigned char bytes[kTokens * sizeof(T)];

    T* begin() { return reinterpret_cast<T*>(bytes); }
  };

  // To a chunk behind the last one.
  void append() {
    Chunk* chunk = new Chunk;
    chunk->next = nullptr;
    if (last_) {
      last_->next = chunk;
    } else {
      first_ = chunk;
      read_ = chunk->begin();
      read_end_ = read_ + kTokens;
    }
    last_ = chunk;
    write_ = chunk->begin();
    write_end_ = write_ + kTokens;
  }
  // All of the first chunk is read: to the next one, or to the same one again.
  void end_chunk() {
    if (first_ == last_) {
      write_ = first_->begin();
    } else {
      drop_first();
    }
    read_ = first_->begin();
    read_end_ = read_ + kTokens;
  }
  void drop_first() {
    Chunk* next = first_->next;
    delete first_;
    first_ = next;
  }
  std::string name() const {
    if (name_) return name_;
    char* text = abi::__cxa_demangle(typeid(*this).name(), nullptr, nullptr, nullptr);
    const std::string found = text ? text : "without a name";
    std::free(text);
    return found;
  }

  const char* name_ = nullptr;
  Chunk *first_ = nullptr, *last_ = nullptr;
  T *read_ = nullptr, *read_end_ = nullptr, *write_ = nullptr, *write_end_ = nullptr;
};

}  // namespace hls
