// SPDX-License-Identifier: Apache-2.0
// What the channel headers share: the intrinsics that the translator knows, and the bits of a
// token. A token is an ap_int, a built-in integer, a struct or an array of those; its fields lie in
// declaration order, the first one lowest, without padding.
//
// A send names all leaves (at most 64 bits each) in one call, a receive returns a handle whose
// leaves are read at once, so that no optimisation can tear a token apart.
#pragma once

#include <ap_int.h>

// Numbers as in openhls/channels.py.
enum openhls_role : int {
  kOpenhlsStream = 0,
  kOpenhlsAcquire = 1,
  kOpenhlsRelease = 2,
  kOpenhlsReadAddress = 3,
  kOpenhlsReadData = 4,
  kOpenhlsWriteAddress = 5,
  kOpenhlsWriteData = 6,
  kOpenhlsWriteResponse = 7,
};

extern "C" {
long __openhls_recv(const void* channel, int role, int bits);
long __openhls_leaf(long handle, int offset, int bits);
// leaves: (long value, int bits) pairs, lowest first
void __openhls_send(const void* channel, int role, int leaves, ...);
long __openhls_read(const void* memory, int depth, int bits, long address);
void __openhls_write(const void* memory, int depth, long address, int leaves, ...);
void __openhls_dataflow();
void __openhls_depth(const void* channels, int depth);
void __openhls_independent(const void* memory);
}

namespace openhls {

template <class T>
struct Bare {
  using type = T;
};
template <class T>
struct Bare<T&> {
  using type = T;
};
template <class T>
struct Bare<const T> : Bare<T> {};
template <class T>
struct Bare<const T&> : Bare<T> {};

constexpr int chunks(int bits) {
  return (bits + 63) / 64;
}
constexpr int chunk_bits(int bits, int chunk) {
  return bits - 64 * chunk > 64 ? 64 : bits - 64 * chunk;
}

// Layout<T>::kBits, kLeaves, and bits_of_leaf(i).
template <class T>
struct Layout;

template <IsNumber T>
struct Layout<T> {
  static constexpr int kBits = Number<T>::kBits;
  static constexpr int kLeaves = chunks(kBits);
  static constexpr int bits_of_leaf(int leaf) { return chunk_bits(kBits, leaf); }
};

template <class T, unsigned long N>
struct Layout<T[N]> {
  static constexpr int kBits = N * Layout<T>::kBits;
  static constexpr int kLeaves = N * Layout<T>::kLeaves;
  static constexpr int bits_of_leaf(int leaf) {
    return Layout<T>::bits_of_leaf(leaf % Layout<T>::kLeaves);
  }
};

template <class... Fields>
struct Sequence {
  static constexpr int kBits = (0 + ... + Layout<Fields>::kBits);
  static constexpr int kLeaves = (0 + ... + Layout<Fields>::kLeaves);
  static constexpr int bits_of_leaf(int leaf) {
    int bits = 0;
    ((leaf >= 0 && leaf < Layout<Fields>::kLeaves ? bits = Layout<Fields>::bits_of_leaf(leaf) : 0,
      leaf -= Layout<Fields>::kLeaves),
     ...);
    return bits;
  }
};
template <class T>
auto fields_of() {
  T* object = nullptr;
  auto& [... field] = *object;
  return static_cast<Sequence<typename Bare<decltype((field))>::type...>*>(nullptr);
}
template <class T>
struct Pointee;
template <class T>
struct Pointee<T*> {
  using type = T;
};

template <class T>
  requires(!IsNumber<T>)
struct Layout<T> : Pointee<decltype(fields_of<T>())>::type {};

// Take x from the token behind `handle`, from bit `offset` on; moves the offset behind it.
template <class T>
void load(long handle, int& offset, T& x) {
  if constexpr (IsNumber<T>) {
    unsigned _BitInt(64 * Layout<T>::kLeaves) all = 0;
    for (int leaf = 0; leaf < Layout<T>::kLeaves; leaf++) {
      unsigned long bits = __openhls_leaf(handle, offset, Layout<T>::bits_of_leaf(leaf));
      all |= (unsigned _BitInt(64 * Layout<T>::kLeaves))(bits) << (64 * leaf);
      offset += Layout<T>::bits_of_leaf(leaf);
    }
    auto value = typename Native<Number<T>::kBits, Number<T>::kSigned>::type(all);
    if constexpr (Number<T>::kIsAp) {
      x.v = value;
    } else {
      x = T(value);
    }
  } else if constexpr (__is_array(T)) {
    for (auto& element : x) load(handle, offset, element);
  } else {
    auto& [... field] = x;
    (load(handle, offset, field), ...);
  }
}

// Append the leaves of x from leaf[i] on; moves i behind them.
template <class T>
void store(long* leaf, int& i, const T& x) {
  if constexpr (IsNumber<T>) {
    auto value = Number<T>::value(x);
    for (int chunk = 0; chunk < Layout<T>::kLeaves; chunk++) {
      leaf[i] = long(value);
      if constexpr (Layout<T>::kLeaves > 1) value = value >> 64;
      i++;
    }
  } else if constexpr (__is_array(T)) {
    for (auto& element : x) store(leaf, i, element);
  } else {
    auto& [... field] = x;
    (store(leaf, i, field), ...);
  }
}

template <class T>
T receive(const void* channel, openhls_role role) {
  T x;
  int offset = 0;
  load(__openhls_recv(channel, role, Layout<T>::kBits), offset, x);
  return x;
}
template <class T>
T read(const void* memory, int depth, unsigned long address) {
  T x;
  int offset = 0;
  load(__openhls_read(memory, depth, Layout<T>::kBits, long(address)), offset, x);
  return x;
}

// The (value, bits) pairs of a token as one argument list.
template <int... I>
struct Indices {};
template <class T, T... I>
struct MakeIndices {
  using type = Indices<int(I)...>;
};
template <class T>
using PairsOf = typename __make_integer_seq<MakeIndices, int, 2 * Layout<T>::kLeaves>::type;
template <class T, int I>
long pair_item(const long* leaf) {
  return I % 2 == 0 ? leaf[I / 2] : Layout<T>::bits_of_leaf(I / 2);
}
template <class T, int... I>
void send_pairs(const void* channel, openhls_role role, const long* leaf, Indices<I...>) {
  __openhls_send(channel, role, Layout<T>::kLeaves, pair_item<T, I>(leaf)...);
}
template <class T, int... I>
void write_pairs(const void* memory, int depth, unsigned long address, const long* leaf,
                 Indices<I...>) {
  __openhls_write(memory, depth, long(address), Layout<T>::kLeaves, pair_item<T, I>(leaf)...);
}

template <class T>
void send(const void* channel, openhls_role role, const T& x) {
  long leaf[Layout<T>::kLeaves];
  int i = 0;
  store(leaf, i, x);
  send_pairs<T>(channel, role, leaf, PairsOf<T>());
}
template <class T>
void write(const void* memory, int depth, unsigned long address, const T& x) {
  long leaf[Layout<T>::kLeaves];
  int i = 0;
  store(leaf, i, x);
  write_pairs<T>(memory, depth, address, leaf, PairsOf<T>());
}

}  // namespace openhls
