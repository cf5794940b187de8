// SPDX-License-Identifier: Apache-2.0
// ap_int<N> and ap_uint<N> of host simulation, on the machine's own integers: widths, signs and
// wrapping are those of AMD's ap_int.h, tests/test_sim_ap_int.py compares them. Only what the
// engine uses is here; whatever else AMD's types can do does not compile.
//
// A number is kept extended to the smallest type that holds it, operators compute in an unsigned
// type of the result's width. A number that is not given a value holds a pattern: what no one wrote
// must not matter.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <type_traits>

template <int N, bool S>
struct ap_bits;
template <int N>
using ap_int = ap_bits<N, true>;
template <int N>
using ap_uint = ap_bits<N, false>;

namespace ap_host {

__extension__ typedef __int128 Signed128;
__extension__ typedef unsigned __int128 Unsigned128;

constexpr int kMostBits = 1024;
constexpr std::uint64_t kPattern = 0xA5C3965A3CF00F69ull;

constexpr int larger(int a, int b) {
  return a > b ? a : b;
}
constexpr int words_of(int bits) {
  return (bits + 63) / 64;
}

// A number of more than 128 bits, lowest word first, modulo 2^(64 WORDS).
template <int WORDS>
struct Words {
  std::uint64_t word[WORDS];

  // The bits of a word and above them those of `above`, 0 or all ones.
  static Words extended(std::uint64_t low, std::uint64_t above) {
    Words r;
    for (int i = 0; i < WORDS; i++) r.word[i] = i == 0 ? low : above;
    return r;
  }
  bool is_negative() const { return word[WORDS - 1] >> 63 != 0; }
  Words operator~() const {
    Words r;
    for (int i = 0; i < WORDS; i++) r.word[i] = ~word[i];
    return r;
  }
  friend Words operator&(const Words& a, const Words& b) {
    Words r;
    for (int i = 0; i < WORDS; i++) r.word[i] = a.word[i] & b.word[i];
    return r;
  }
  friend Words operator|(const Words& a, const Words& b) {
    Words r;
    for (int i = 0; i < WORDS; i++) r.word[i] = a.word[i] | b.word[i];
    return r;
  }
  friend Words operator^(const Words& a, const Words& b) {
    Words r;
    for (int i = 0; i < WORDS; i++) r.word[i] = a.word[i] ^ b.word[i];
    return r;
  }
  friend Words operator+(const Words& a, const Words& b) {
    Words r;
    Unsigned128 sum = 0;
    for (int i = 0; i < WORDS; i++) {
      sum = (sum >> 64) + a.word[i] + b.word[i];
      r.word[i] = std::uint64_t(sum);
    }
    return r;
  }
  friend Words operator-(const Words& a, const Words& b) { return a + ~b + Words::extended(1, 0); }
  friend bool operator==(const Words& a, const Words& b) {
    for (int i = 0; i < WORDS; i++) {
      if (a.word[i] != b.word[i]) return false;
    }
    return true;
  }
  Words shifted_left(unsigned amount) const {
    Words r;
    const int skip = int(amount / 64), bits = int(amount % 64);
    for (int i = 0; i < WORDS; i++) {
      const std::uint64_t high = i >= skip ? word[i - skip] : 0;
      const std::uint64_t low = i > skip ? word[i - skip - 1] : 0;
      r.word[i] = bits == 0 ? high : (high << bits) | (low >> (64 - bits));
    }
    return r;
  }
  Words shifted_right(unsigned amount, std::uint64_t above) const {
    Words r;
    const int skip = int(amount / 64), bits = int(amount % 64);
    for (int i = 0; i < WORDS; i++) {
      const std::uint64_t low = i + skip < WORDS ? word[i + skip] : above;
      const std::uint64_t high = i + skip + 1 < WORDS ? word[i + skip + 1] : above;
      r.word[i] = bits == 0 ? low : (low >> bits) | (high << (64 - bits));
    }
    return r;
  }
};

// What a number of BITS bits is kept in, and the unsigned type its operators compute in.
constexpr int size_of(int bits) {
  return bits <= 8     ? 8
         : bits <= 16  ? 16
         : bits <= 32  ? 32
         : bits <= 64  ? 64
         : bits <= 128 ? 128
                       : 0;
}
template <int BITS, int SIZE = size_of(BITS)>
struct Types;
template <int BITS>
struct Types<BITS, 8> {
  typedef std::int8_t Signed;
  typedef std::uint8_t Unsigned;
  typedef std::uint32_t Work;
};
template <int BITS>
struct Types<BITS, 16> {
  typedef std::int16_t Signed;
  typedef std::uint16_t Unsigned;
  typedef std::uint32_t Work;
};
template <int BITS>
struct Types<BITS, 32> {
  typedef std::int32_t Signed;
  typedef std::uint32_t Unsigned;
  typedef std::uint32_t Work;
};
template <int BITS>
struct Types<BITS, 64> {
  typedef std::int64_t Signed;
  typedef std::uint64_t Unsigned;
  typedef std::uint64_t Work;
};
template <int BITS>
struct Types<BITS, 128> {
  typedef Signed128 Signed;
  typedef Unsigned128 Unsigned;
  typedef Unsigned128 Work;
};
template <int BITS>
struct Types<BITS, 0> {
  typedef Words<words_of(BITS)> Signed, Unsigned, Work;
};
template <int BITS, bool S>
using Kept = typename std::conditional<S, typename Types<BITS>::Signed,
                                       typename Types<BITS>::Unsigned>::type;
template <int BITS>
using Work = typename Types<BITS>::Work;

// Extends or cuts a kept number, by its sign if it `S`.
template <class To, bool S, class From>
struct Convert {
  static To of(From x) { return To(x); }
};
template <int WORDS, bool S, class From>
struct Convert<Words<WORDS>, S, From> {
  static Words<WORDS> of(From x) {
    const std::uint64_t above = S && x < From(0) ? ~std::uint64_t(0) : 0;
    Words<WORDS> r = Words<WORDS>::extended(std::uint64_t(x), above);
    if (sizeof(From) > 8) r.word[1] = std::uint64_t(Unsigned128(x) >> 64);
    return r;
  }
};
template <class To, bool S, int WORDS>
struct Convert<To, S, Words<WORDS>> {
  static To of(const Words<WORDS>& x) { return To((Unsigned128(x.word[1]) << 64) | x.word[0]); }
};
template <int TO, bool S, int FROM>
struct Convert<Words<TO>, S, Words<FROM>> {
  static Words<TO> of(const Words<FROM>& x) {
    const std::uint64_t above = S && x.is_negative() ? ~std::uint64_t(0) : 0;
    Words<TO> r;
    for (int i = 0; i < TO; i++) r.word[i] = i < FROM ? x.word[i < FROM ? i : 0] : above;
    return r;
  }
};

// Shifts by less than the width of the type; to the right by the sign if `S`.
template <bool S, class W>
W shift_left(W x, unsigned amount) {
  return W(x << amount);
}
template <bool S, int WORDS>
Words<WORDS> shift_left(const Words<WORDS>& x, unsigned amount) {
  return x.shifted_left(amount);
}
template <bool S, class K>
K shift_right(K x, unsigned amount) {
  return K(x >> amount);
}
template <bool S, int WORDS>
Words<WORDS> shift_right(const Words<WORDS>& x, unsigned amount) {
  return x.shifted_right(amount, S && x.is_negative() ? ~std::uint64_t(0) : 0);
}

// The lowest N bits of x, extended.
template <int N, bool S>
Kept<N, S> wrap(Work<N> x) {
  constexpr int kSpare = int(8 * sizeof(x)) - N;
  const Work<N> top = shift_left<S>(x, kSpare);
  return Convert<Kept<N, S>, S, Kept<8 * sizeof(x), S>>::of(
      shift_right<S>(Convert<Kept<8 * sizeof(x), S>, S, Work<N>>::of(top), kSpare));
}

// Width, sign and value of all that takes part in arithmetic; other types have none.
template <class T>
struct Number {
  static constexpr bool kIs = false, kIsAp = false;
};
template <int N, bool S>
struct Number<ap_bits<N, S>> {
  static constexpr bool kIs = true, kIsAp = true, kSigned = S;
  static constexpr int kBits = N;
  static Kept<N, S> kept(const ap_bits<N, S>& x) { return x.kept; }
};
template <class T, int N, bool S>
struct Builtin {
  static constexpr bool kIs = true, kIsAp = false, kSigned = S;
  static constexpr int kBits = N;
  static Kept<N, S> kept(T x) { return Kept<N, S>(x); }
};
template <>
struct Number<bool> : Builtin<bool, 1, false> {};
template <>
struct Number<char> : Builtin<char, 8, std::is_signed<char>::value> {};
template <>
struct Number<signed char> : Builtin<signed char, 8, true> {};
template <>
struct Number<unsigned char> : Builtin<unsigned char, 8, false> {};
template <>
struct Number<short> : Builtin<short, 16, true> {};
template <>
struct Number<unsigned short> : Builtin<unsigned short, 16, false> {};
template <>
struct Number<int> : Builtin<int, 32, true> {};
template <>
struct Number<unsigned> : Builtin<unsigned, 32, false> {};
template <>
struct Number<long> : Builtin<long, 8 * sizeof(long), true> {};
template <>
struct Number<unsigned long> : Builtin<unsigned long, 8 * sizeof(long), false> {};
template <>
struct Number<long long> : Builtin<long long, 64, true> {};
template <>
struct Number<unsigned long long> : Builtin<unsigned long long, 64, false> {};

template <class T>
using IfBuiltin = typename std::enable_if<Number<T>::kIs && !Number<T>::kIsAp>::type;
template <class T>
using IfForeign = typename std::enable_if<!Number<T>::kIs>::type;
template <class A, class B>
using IfOneIsAp = typename std::enable_if<Number<A>::kIs && Number<B>::kIs &&
                                          (Number<A>::kIsAp || Number<B>::kIsAp)>::type;
template <class A, class B>
using IfOneIsForeign = typename std::enable_if<(Number<A>::kIsAp && !Number<B>::kIs) ||
                                               (Number<B>::kIsAp && !Number<A>::kIs)>::type;
template <class A, class B>
using IfAnyIsAp = typename std::enable_if<Number<A>::kIsAp || Number<B>::kIsAp>::type;

// What holds the operands of a binary operator without loss.
template <class A, class B>
struct Both {
  static constexpr bool kSigned = Number<A>::kSigned || Number<B>::kSigned;
  static constexpr int kBits =
      larger(Number<A>::kBits + (Number<B>::kSigned && !Number<A>::kSigned),
             Number<B>::kBits + (Number<A>::kSigned && !Number<B>::kSigned));
};

// How two numbers are compared. AMD's types do it like C: by value if both are signed or none is,
// if both are narrower than an int, or if the signed one is the wider one; else a negative number
// counts as a large one, and equals one of the same lowest bits.
template <class A, class B>
struct Compared {
  static constexpr bool kSigned = Number<A>::kSigned, kOther = Number<B>::kSigned;
  static constexpr int kBits = Number<A>::kBits, kOtherBits = Number<B>::kBits;
  static constexpr bool kByValue = kSigned == kOther || (kBits < 32 && kOtherBits < 32) ||
                                   (kSigned ? kBits > kOtherBits : kOtherBits > kBits);
  static constexpr bool kBySign = kByValue && (kSigned || kOther);
  typedef Kept<Both<A, B>::kBits, kBySign> Order;
  static constexpr int kEqualBits = larger(larger(kBits, kOtherBits), 32);
};

// The value of x modulo the width of a type of arithmetic.
template <class To, class T>
To as(const T& x) {
  typedef Number<T> From;
  return Convert<To, From::kSigned, Kept<From::kBits, From::kSigned>>::of(From::kept(x));
}

// Whether the lowest bits of both are the same.
template <int BITS, class T>
bool are_equal(const T& x, const T& y) {
  return wrap<BITS, false>(x) == wrap<BITS, false>(y);
}
template <bool S, class T>
bool is_less(const T& a, const T& b) {
  return a < b;
}
template <bool S, int WORDS>
bool is_less(const Words<WORDS>& a, const Words<WORDS>& b) {
  if (S && a.is_negative() != b.is_negative()) return a.is_negative();
  for (int i = WORDS - 1; i > 0; i--) {
    if (a.word[i] != b.word[i]) return a.word[i] < b.word[i];
  }
  return a.word[0] < b.word[0];
}

[[noreturn]] inline void stop_at_bit(int bit, int bits) {
  std::fflush(stdout);
  std::fprintf(stderr, "error: ap_int: bit %d of a number of %d bits\n", bit, bits);
  std::exit(3);
}
[[noreturn]] inline void stop_at_zero() {
  std::fflush(stdout);
  std::fprintf(stderr, "error: ap_int: division by zero\n");
  std::exit(3);
}

}  // namespace ap_host

template <int N, bool S>
struct ap_bits {
  static_assert(N >= 1 && N <= ap_host::kMostBits, "ap_int: 1 to 1024 bits");
  static constexpr int width = N;

  ap_host::Kept<N, S> kept;

  ap_bits() : ap_bits((unsigned long long)(ap_host::kPattern)) {}
  ap_bits(const ap_bits&) = default;
  template <class T, class = ap_host::IfBuiltin<T>>
  ap_bits(T x) : kept(ap_host::wrap<N, S>(ap_host::as<ap_host::Work<N>>(x))) {}
  template <int M, bool R>
  ap_bits(const ap_bits<M, R>& x) : kept(ap_host::wrap<N, S>(ap_host::as<ap_host::Work<N>>(x))) {}
  template <class T, class = ap_host::IfForeign<T>, class = void>
  ap_bits(T) = delete;
  // To what is named only: (a + b) = c would be lost.
  ap_bits& operator=(const ap_bits&) & = default;

  // Of a result whose value fits.
  static ap_bits exact(const ap_host::Work<N>& x) {
    ap_bits r(0);
    r.kept = ap_host::Convert<ap_host::Kept<N, S>, S, ap_host::Work<N>>::of(x);
    return r;
  }

  typedef typename std::conditional<S, long long, unsigned long long>::type Native;
  operator Native() const {
    static_assert(N <= 64, "no machine integer holds this ap_int; cut it first");
    return ap_host::as<Native>(*this);
  }
  int to_int() const { return ap_host::as<int>(*this); }
  unsigned to_uint() const { return ap_host::as<unsigned>(*this); }
  std::int64_t to_int64() const { return ap_host::as<std::int64_t>(*this); }
  std::uint64_t to_uint64() const { return ap_host::as<std::uint64_t>(*this); }

  ap_uint<1> operator[](int bit) const {
    if (bit < 0 || bit >= N) ap_host::stop_at_bit(bit, N);
    return ap_uint<1>(*this >> bit);
  }

  bool operator!() const { return *this == 0; }
  ap_bits operator+() const { return *this; }
  ap_bits operator~() const {
    return ap_bits(ap_bits<N, S>::wrapped(~ap_host::as<ap_host::Work<N>>(*this)));
  }
  static ap_bits wrapped(const ap_host::Work<N>& x) {
    ap_bits r(0);
    r.kept = ap_host::wrap<N, S>(x);
    return r;
  }

  ap_bits& operator++() & { return *this = ap_bits(*this + 1); }
  ap_bits& operator--() & { return *this = ap_bits(*this - 1); }
  ap_bits operator++(int) & {
    const ap_bits before = *this;
    ++*this;
    return before;
  }
  ap_bits operator--(int) & {
    const ap_bits before = *this;
    --*this;
    return before;
  }
};

// Operators whose result holds every value, as wide and signed as AMD's.
#define AP_HOST_BINARY(op, bits, is_signed)                                   \
  template <class A, class B, class = ap_host::IfOneIsAp<A, B>>               \
  ap_bits<(bits), (is_signed)> operator op(const A& a, const B& b) {          \
    typedef ap_host::Work<(bits)> Work;                                       \
    return ap_bits<(bits), (is_signed)>::exact(                               \
        Work(ap_host::as<Work>(a) op ap_host::as<Work>(b)));                  \
  }                                                                           \
  template <class A, class B, class = ap_host::IfOneIsForeign<A, B>, int = 0> \
  void operator op(const A&, const B&) = delete;                              \
  template <int N, bool S, class B>                                           \
  ap_bits<N, S>& operator op## = (ap_bits<N, S> & a, const B& b) {            \
    return a = ap_bits<N, S>(a op b);                                         \
  }
#define AP_HOST_BITS (ap_host::Both<A, B>::kBits)
#define AP_HOST_SIGNED (ap_host::Both<A, B>::kSigned)
AP_HOST_BINARY(+, AP_HOST_BITS + 1, AP_HOST_SIGNED)
AP_HOST_BINARY(-, AP_HOST_BITS + 1, true)
AP_HOST_BINARY(*, ap_host::Number<A>::kBits + ap_host::Number<B>::kBits, AP_HOST_SIGNED)
AP_HOST_BINARY(&, AP_HOST_BITS, AP_HOST_SIGNED)
AP_HOST_BINARY(|, AP_HOST_BITS, AP_HOST_SIGNED)
AP_HOST_BINARY(^, AP_HOST_BITS, AP_HOST_SIGNED)
#undef AP_HOST_BINARY
#undef AP_HOST_BITS
#undef AP_HOST_SIGNED

#define AP_HOST_COMPARE(op, type, text)                                       \
  template <class A, class B, class = ap_host::IfOneIsAp<A, B>>               \
  bool operator op(const A& a, const B& b) {                                  \
    typedef ap_host::Compared<A, B> Compared;                                 \
    const auto x = ap_host::as<type>(a), y = ap_host::as<type>(b);            \
    return text;                                                              \
  }                                                                           \
  template <class A, class B, class = ap_host::IfOneIsForeign<A, B>, int = 0> \
  bool operator op(const A&, const B&) = delete;
#define AP_HOST_EQUAL ap_host::Kept<Compared::kEqualBits, false>
#define AP_HOST_ORDER typename Compared::Order
AP_HOST_COMPARE(==, AP_HOST_EQUAL, ap_host::are_equal<Compared::kEqualBits>(x, y))
AP_HOST_COMPARE(!=, AP_HOST_EQUAL, !ap_host::are_equal<Compared::kEqualBits>(x, y))
AP_HOST_COMPARE(<, AP_HOST_ORDER, ap_host::is_less<Compared::kBySign>(x, y))
AP_HOST_COMPARE(>, AP_HOST_ORDER, ap_host::is_less<Compared::kBySign>(y, x))
AP_HOST_COMPARE(<=, AP_HOST_ORDER, !ap_host::is_less<Compared::kBySign>(y, x))
AP_HOST_COMPARE(>=, AP_HOST_ORDER, !ap_host::is_less<Compared::kBySign>(x, y))
#undef AP_HOST_ORDER
#undef AP_HOST_EQUAL
#undef AP_HOST_COMPARE

template <int N, bool S>
ap_int<ap_host::larger(N, 1 + S) + 1> operator-(const ap_bits<N, S>& x) {
  return ap_uint<1>(0) - x;
}

// Cut towards zero. AMD's types divide like C: if the wider one of two numbers is unsigned, and the
// other one negative, that counts as a large one.
template <class A, class B, class = ap_host::IfOneIsAp<A, B>>
ap_bits<ap_host::Number<A>::kBits + ap_host::Number<B>::kSigned, ap_host::Both<A, B>::kSigned>
operator/(const A& a, const B& b) {
  typedef ap_host::Compared<A, B> Pair;
  constexpr bool kSigned = ap_host::Both<A, B>::kSigned;
  constexpr bool kBySign = Pair::kBits == Pair::kOtherBits  ? kSigned
                           : Pair::kBits > Pair::kOtherBits ? Pair::kSigned
                                                            : Pair::kOther;
  constexpr int kBits = Pair::kBits + Pair::kOther;
  constexpr int kWide = ap_host::larger(Pair::kBits, Pair::kOtherBits) + kSigned;
  static_assert(kWide <= 128, "ap_int: too wide for a division");
  typedef ap_host::Work<kWide> Work;
  typedef ap_host::Kept<kWide, kBySign> Wide;
  const Wide y = ap_host::wrap<kWide, kBySign>(ap_host::as<Work>(b));
  if (y == 0) ap_host::stop_at_zero();
  const Wide quotient = Wide(ap_host::wrap<kWide, kBySign>(ap_host::as<Work>(a)) / y);
  return ap_bits<kBits, kSigned>::wrapped(
      ap_host::Convert<ap_host::Work<kBits>, kBySign, Wide>::of(quotient));
}
template <class A, class B, class = ap_host::IfOneIsForeign<A, B>, int = 0>
void operator/(const A&, const B&) = delete;
template <int N, bool S, class B>
ap_bits<N, S>& operator/=(ap_bits<N, S>& a, const B& b) {
  return a = ap_bits<N, S>(a / b);
}

// Shifts by the width or more give zero or the sign, by negative amounts go the other way. The
// result is as wide as what is shifted.
namespace ap_host {

template <int N, bool S>
ap_bits<N, S> left(const ap_bits<N, S>& x, unsigned amount) {
  typedef Work<N> W;
  if (amount >= 8 * sizeof(W)) return ap_bits<N, S>(0);
  return ap_bits<N, S>::wrapped(shift_left<S>(as<W>(x), amount));
}
template <int N, bool S>
ap_bits<N, S> right(const ap_bits<N, S>& x, unsigned amount) {
  constexpr unsigned kMost = 8 * sizeof(x.kept) - 1;
  ap_bits<N, S> r(0);
  r.kept = shift_right<S>(x.kept, amount < kMost ? amount : kMost);
  return !S && amount > kMost ? ap_bits<N, S>(0) : r;
}
template <bool LEFT, int N, bool S, class B>
ap_bits<N, S> shift(const ap_bits<N, S>& x, const B& by) {
  static_assert(Number<B>::kBits <= 32, "an ap_int is shifted by at most 32 bits of amount");
  const unsigned amount = as<unsigned>(by);
  const bool reverses = Number<B>::kSigned && as<int>(by) < 0;
  if (reverses) return LEFT ? right(x, 0u - amount) : left(x, 0u - amount);
  return LEFT ? left(x, amount) : right(x, amount);
}

}  // namespace ap_host

template <int N, bool S, class B>
ap_bits<N, S> operator<<(const ap_bits<N, S>& x, const B& by) {
  return ap_host::shift<true>(x, by);
}
template <int N, bool S, class B>
ap_bits<N, S> operator>>(const ap_bits<N, S>& x, const B& by) {
  return ap_host::shift<false>(x, by);
}
template <int N, bool S, class B>
ap_bits<N, S>& operator<<=(ap_bits<N, S>& x, const B& by) {
  return x = x << by;
}
template <int N, bool S, class B>
ap_bits<N, S>& operator>>=(ap_bits<N, S>& x, const B& by) {
  return x = x >> by;
}

// A machine integer is shifted by machine integers only.
template <class T, int N, bool S, class = ap_host::IfBuiltin<T>>
void operator<<(const T&, const ap_bits<N, S>&) = delete;
template <class T, int N, bool S, class = ap_host::IfBuiltin<T>>
void operator>>(const T&, const ap_bits<N, S>&) = delete;

// What would compile with converted operands, and mean something else: AMD's comma concatenates.
#define AP_HOST_REFUSE(op)                                      \
  template <class A, class B, class = ap_host::IfAnyIsAp<A, B>> \
  void operator op(const A&, const B&) = delete;
AP_HOST_REFUSE(%)
#define AP_HOST_COMMA ,
AP_HOST_REFUSE(AP_HOST_COMMA)
#undef AP_HOST_COMMA
#undef AP_HOST_REFUSE
