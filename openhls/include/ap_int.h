// SPDX-License-Identifier: Apache-2.0
// Integers of any width for openhls: ap_int<N> and ap_uint<N> over clang's _BitInt(N), with the
// result widths and signs of AMD's ap_int.h. Shifts by the width or more give zero or the sign;
// a negative amount shifts the other way.
#pragma once

namespace openhls {

// Wide numbers are kept and passed in whole words: padding would keep them in memory.
constexpr int kept_bits(int bits) {
  return bits <= 64 ? bits : (bits + 63) / 64 * 64;
}

template <int N, bool S>
struct Native {
  static_assert(N >= 2, "ap_int<1> is not supported; use ap_uint<1> or ap_int<2>");
  using type = signed _BitInt(N);
};
template <int N>
struct Native<N, false> {
  using type = unsigned _BitInt(N);
};

template <int N, bool S>
using Kept = typename Native<kept_bits(N), S>::type;

template <int N, bool S>
struct Word64 {
  using type = unsigned long long;
};
template <int N>
struct Word64<N, true> {
  using type = long long;
};

constexpr int larger(int a, int b) {
  return a > b ? a : b;
}

constexpr int smaller(int a, int b) {
  return a < b ? a : b;
}

}  // namespace openhls

template <int N, bool S>
struct ap_bits;

namespace openhls {

// Width and sign of everything that takes part in arithmetic.
template <class T>
struct Number;
template <int N, bool S>
struct Number<ap_bits<N, S>> {
  static constexpr int kBits = N;
  static constexpr bool kSigned = S, kIsAp = true;
  static Kept<N, S> value(const ap_bits<N, S>& x) { return x.v; }
};
template <class T, int N, bool S>
struct Builtin {
  static constexpr int kBits = N;
  static constexpr bool kSigned = S, kIsAp = false;
  static typename Native<N, S>::type value(T x) { return typename Native<N, S>::type(x); }
};
template <>
struct Number<bool> : Builtin<bool, 1, false> {};
template <>
struct Number<char> : Builtin<char, 8, true> {};
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
struct Number<long> : Builtin<long, 64, true> {};
template <>
struct Number<unsigned long> : Builtin<unsigned long, 64, false> {};
template <>
struct Number<long long> : Builtin<long long, 64, true> {};
template <>
struct Number<unsigned long long> : Builtin<unsigned long long, 64, false> {};

template <class T>
concept IsNumber = requires { Number<T>::kBits; };
template <class T>
concept IsBuiltin = IsNumber<T> && !Number<T>::kIsAp;
template <class A, class B>
concept OneIsAp = IsNumber<A> && IsNumber<B> && (Number<A>::kIsAp || Number<B>::kIsAp);

// What a binary operator works with: both operands without loss.
template <class A, class B>
struct Both {
  static constexpr bool kSigned = Number<A>::kSigned || Number<B>::kSigned;
  static constexpr int kBits = larger(Number<A>::kBits + (Number<B>::kSigned && !Number<A>::kSigned),
                                      Number<B>::kBits + (Number<A>::kSigned && !Number<B>::kSigned));
  static constexpr int kQuotientBits = Number<A>::kBits + Number<B>::kSigned;
  static constexpr int kRemainderBits =
      smaller(Number<A>::kBits, Number<B>::kBits + (Number<A>::kSigned && !Number<B>::kSigned));
};

// The type an operator computes in: wide enough for its operands and its result.
template <class Result, class Common>
struct Wider : Native<larger(Result::width, Common::kBits), Number<Result>::kSigned || Common::kSigned> {
};

// x << amount, x >> amount for an amount that is not negative. Where the amount can reach the
// width, a narrow amount is served by a wider shift, a wide one by a comparison.
template <bool LEFT, int N, bool S, int M>
ap_bits<N, S> shift_by(ap_bits<N, S> x, unsigned _BitInt(M) amount) {
  constexpr int kReach = M > 8 ? 0 : 1 << M;  // smallest width no amount reaches
  ap_bits<N, S> result;
  if constexpr (kReach != 0) {
    using Wide = typename Native<larger(N, kReach), S>::type;
    Wide wide = LEFT ? Wide(Wide(x.v) << amount) : Wide(Wide(x.v) >> amount);
    result.v = typename ap_bits<N, S>::Value(wide);
  } else if (amount < unsigned(N)) {
    result.v = typename ap_bits<N, S>::Value(LEFT ? x.v << amount : x.v >> amount);
  } else {
    result.v = !LEFT && S && x.v < 0 ? -1 : 0;
  }
  return result;
}

template <bool LEFT, int N, bool S, class B>
ap_bits<N, S> shift(ap_bits<N, S> x, B amount) {
  constexpr int kBits = Number<B>::kBits;
  auto value = Number<B>::value(amount);
  if constexpr (Number<B>::kSigned) {
    using Magnitude = unsigned _BitInt(kBits);
    if (value < 0) return shift_by<!LEFT, N, S, kBits>(x, Magnitude(0) - Magnitude(value));
    return shift_by<LEFT, N, S, kBits>(x, Magnitude(value));
  } else {
    return shift_by<LEFT, N, S, kBits>(x, value);
  }
}

}  // namespace openhls

template <int N, bool S>
struct ap_bits {
  using Value = typename openhls::Native<N, S>::type;
  static constexpr int width = N;
  using Bits = openhls::Kept<N, false>;
  openhls::Kept<N, S> v;

  // One bit, or bits [low, low + width) as a place to read from and assign to.
  struct Part {
    ap_bits& whole;
    int low, width;
    Bits mask() const { return Bits(~Bits(0)) >> (openhls::kept_bits(N) - width); }
    Bits bits() const { return (Bits(whole.v) >> low) & mask(); }
    operator ap_bits<N, false>() const {
      ap_bits<N, false> r;
      r.v = bits();
      return r;
    }
    operator unsigned long long() const { return (unsigned long long)(bits()); }
    template <class X>
    Part& operator=(const X& x) {
      Bits part;
      if constexpr (openhls::IsNumber<X>) {
        part = Bits(openhls::Number<X>::value(x)) & mask();
      } else {
        part = Bits(x.bits()) & mask();
      }
      whole.v = Value((Bits(whole.v) & ~(mask() << low)) | (part << low));
      return *this;
    }
    Part& operator=(const Part& x) { return operator= <Part>(x); }
  };

  ap_bits() = default;
  template <openhls::IsBuiltin X>
  ap_bits(X x) : v(Value(x)) {}
  ap_bits(double x) : v(Value(x)) {}
  template <int M, bool R>
  ap_bits(const ap_bits<M, R>& x) : v(Value(x.v)) {}
  operator typename openhls::Word64<N, S>::type() const {
    return (typename openhls::Word64<N, S>::type)(v);
  }

  int length() const { return N; }
  int to_int() const { return int(v); }
  unsigned to_uint() const { return unsigned(v); }
  long long to_int64() const { return (long long)(v); }
  unsigned long long to_uint64() const { return (unsigned long long)(v); }
  bool to_bool() const { return v != 0; }
  bool test(int i) const { return bool((Bits(v) >> i) & 1); }
  bool operator[](int i) const { return test(i); }
  Part operator[](int i) { return Part{*this, i, 1}; }
  ap_bits<N, false> range(int high, int low) const {
    ap_bits<N, false> r;
    r.v = (Bits(v) >> low) & (Bits(~Bits(0)) >> (openhls::kept_bits(N) - 1 - high + low));
    return r;
  }
  Part range(int high, int low) { return Part{*this, low, high - low + 1}; }
  ap_bits<N, false> operator()(int high, int low) const { return range(high, low); }
  Part operator()(int high, int low) { return range(high, low); }

  ap_bits& operator++() { return *this = *this + 1; }
  ap_bits& operator--() { return *this = *this - 1; }
  ap_bits operator++(int) {
    ap_bits old = *this;
    ++*this;
    return old;
  }
  ap_bits operator--(int) {
    ap_bits old = *this;
    --*this;
    return old;
  }
  template <class X>
  ap_bits& operator+=(X x) {
    return *this = ap_bits(*this + x);
  }
  template <class X>
  ap_bits& operator-=(X x) {
    return *this = ap_bits(*this - x);
  }
  template <class X>
  ap_bits& operator*=(X x) {
    return *this = ap_bits(*this * x);
  }
  template <class X>
  ap_bits& operator/=(X x) {
    return *this = ap_bits(*this / x);
  }
  template <class X>
  ap_bits& operator%=(X x) {
    return *this = ap_bits(*this % x);
  }
  template <class X>
  ap_bits& operator&=(X x) {
    return *this = ap_bits(*this & x);
  }
  template <class X>
  ap_bits& operator|=(X x) {
    return *this = ap_bits(*this | x);
  }
  template <class X>
  ap_bits& operator^=(X x) {
    return *this = ap_bits(*this ^ x);
  }
  template <class X>
  ap_bits& operator<<=(X x) {
    return *this = *this << x;
  }
  template <class X>
  ap_bits& operator>>=(X x) {
    return *this = *this >> x;
  }

  bool operator!() const { return v == 0; }
  ap_bits operator+() const { return *this; }
  ap_bits operator~() const {
    ap_bits r;
    r.v = Value(~v);
    return r;
  }
};

template <int N>
using ap_int = ap_bits<N, true>;
template <int N>
using ap_uint = ap_bits<N, false>;

#define OPENHLS_BINARY(op, bits, is_signed)                                              \
  template <class A, class B>                                                            \
    requires openhls::OneIsAp<A, B>                                                      \
  auto operator op(A a, B b) {                                                           \
    using Common = openhls::Both<A, B>;                                                  \
    using Result = ap_bits<(bits), (is_signed)>;                                         \
    using Value = typename openhls::Wider<Result, Common>::type;                         \
    Result r;                                                                            \
    r.v = typename Result::Value(Value(openhls::Number<A>::value(a))                     \
                                     op Value(openhls::Number<B>::value(b)));            \
    return r;                                                                            \
  }
OPENHLS_BINARY(+, Common::kBits + 1, Common::kSigned)
OPENHLS_BINARY(-, Common::kBits + 1, true)
OPENHLS_BINARY(*, openhls::Number<A>::kBits + openhls::Number<B>::kBits, Common::kSigned)
OPENHLS_BINARY(/, Common::kQuotientBits, Common::kSigned)
OPENHLS_BINARY(%, Common::kRemainderBits, openhls::Number<A>::kSigned)
OPENHLS_BINARY(&, Common::kBits, Common::kSigned)
OPENHLS_BINARY(|, Common::kBits, Common::kSigned)
OPENHLS_BINARY(^, Common::kBits, Common::kSigned)
#undef OPENHLS_BINARY

#define OPENHLS_COMPARE(op)                                                            \
  template <class A, class B>                                                          \
    requires openhls::OneIsAp<A, B>                                                    \
  bool operator op(A a, B b) {                                                         \
    using Common = openhls::Both<A, B>;                                                \
    using Value = typename openhls::Native<Common::kBits, Common::kSigned>::type;      \
    return Value(openhls::Number<A>::value(a)) op Value(openhls::Number<B>::value(b)); \
  }
OPENHLS_COMPARE(==)
OPENHLS_COMPARE(!=)
OPENHLS_COMPARE(<)
OPENHLS_COMPARE(<=)
OPENHLS_COMPARE(>)
OPENHLS_COMPARE(>=)
#undef OPENHLS_COMPARE

template <int N, bool S>
ap_bits<openhls::larger(N, 1 + S) + 1, true> operator-(ap_bits<N, S> x) {
  return ap_uint<1>(0) - x;
}
template <int N, bool S, openhls::IsNumber B>
ap_bits<N, S> operator<<(ap_bits<N, S> x, B amount) {
  return openhls::shift<true>(x, amount);
}
template <int N, bool S, openhls::IsNumber B>
ap_bits<N, S> operator>>(ap_bits<N, S> x, B amount) {
  return openhls::shift<false>(x, amount);
}
