// SPDX-License-Identifier: Apache-2.0
// Prints what operators and conversions of ap_int give, with the width and sign of every result,
// so that two headers can be compared: AMD's, where NUMBER is ap_int_base, and that of host
// simulation, where it is ap_bits. tests/test_sim_ap_int.py writes a main around it.
#include <ap_int.h>

#include <cstdint>
#include <cstdio>

constexpr int kRounds = 12;  // values of every pair of types

static std::uint64_t random_state = 1;
static std::uint64_t random_word() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state * 0x2545F4914F6CDD1Dull;
}

// Zero, one, all ones, the largest, the smallest, small numbers of both signs, or any.
template <class A>
A any() {
  const std::uint64_t how = random_word() % 12, small = random_word() % 200;
  const A one = A(1), ones = A(~A(0)), top = A(one << (A::width - 1));
  if (how == 0) return A(0);
  if (how == 1) return one;
  if (how == 2) return ones;
  if (how == 3) return top;
  if (how == 4) return A(~top);
  if (how == 5) return A(small);
  if (how == 6) return A(-static_cast<long long>(small));
  A x = A(random_word());
  for (int i = 64; i < A::width; i += 64) x = A((A(x << 32) << 32) | A(random_word()));
  return x;
}

static void show(bool x) {
  std::printf(" %d", x);
}
static void show(int x) {
  std::printf(" i%x", static_cast<unsigned>(x));
}
static void show(unsigned x) {
  std::printf(" u%x", x);
}
static void show(long long x) {
  std::printf(" I%llx", static_cast<unsigned long long>(x));
}
static void show(unsigned long long x) {
  std::printf(" U%llx", x);
}
template <int N, bool S>
void show(const NUMBER<N, S>& x) {
  std::printf(" %c%d:", S ? 's' : 'u', N);
  for (int i = (N - 1) / 64 * 64; i >= 0; i -= 64) {
    const ap_uint<64> word = ap_uint<64>(x >> i);
    std::printf("%llx.", static_cast<unsigned long long>(word.to_uint64()));
  }
}

template <class A, class B>
void sums(const A& a, const B& b) {
  show(a + b);
  show(a - b);
  show(a & b);
  show(a | b);
  show(a ^ b);
}
template <class A, class B>
void compare(const A& a, const B& b) {
  show(a == b);
  show(a != b);
  show(a < b);
  show(a <= b);
  show(a > b);
  show(a >= b);
}
template <class A, class B>
void assign(const A& a, const B& b) {
  A c = a;
  show(c += b);
  show(c -= b);
  show(c &= b);
  show(c |= b);
  show(c ^= b);
  c = b;
  show(c);
  show(A(b));
}
template <class A, class B>
void start(const char* name, const A& a, const B& b) {
  std::printf("\n%s", name);
  show(a);
  show(b);
  std::printf(" =");
}

template <class A, class B>
void test_pair() {
  for (int i = 0; i < kRounds; i++) {
    const A a = any<A>();
    const B b = any<B>();
    start("pair", a, b);
    sums(a, b);
    compare(a, b);
    assign(a, b);
  }
}
template <class A, class B>
void test_product() {
  for (int i = 0; i < kRounds; i++) {
    const A a = any<A>();
    const B b = any<B>();
    start("product", a, b);
    show(a * b);
    A c = a;
    show(c *= b);
  }
}
template <class A, class B>
void test_quotient() {
  for (int i = 0; i < kRounds; i++) {
    const A a = any<A>();
    B b = any<B>();
    if (b == 0) b = B(1);
    start("quotient", a, b);
    show(a / b);
    A c = a;
    show(c /= b);
  }
}
template <class A, class B>
void test_shift() {
  for (int i = 0; i < kRounds; i++) {
    const A a = any<A>();
    const B b = any<B>();
    start("shift", a, b);
    show(a << b);
    show(a >> b);
    A c = a;
    show(c <<= b);
    c = a;
    show(c >>= b);
  }
}

template <class A, class T>
void test_builtin(T b) {
  const A a = any<A>();
  start("builtin", a, A(b));
  sums(a, b);
  sums(b, a);
  compare(a, b);
  compare(b, a);
  assign(a, b);
}
template <class A>
void test_builtins() {
  for (int i = 0; i < kRounds; i++) {
    const std::uint64_t shift = random_word() % 64;
    const std::uint64_t word = random_word() >> shift;
    test_builtin<A>(word % 2 != 0);
    test_builtin<A>(static_cast<char>(word));
    test_builtin<A>(static_cast<signed char>(word));
    test_builtin<A>(static_cast<unsigned char>(word));
    test_builtin<A>(static_cast<short>(word));
    test_builtin<A>(static_cast<unsigned short>(word));
    test_builtin<A>(static_cast<int>(word));
    test_builtin<A>(static_cast<unsigned>(word));
    test_builtin<A>(static_cast<long>(word));
    test_builtin<A>(static_cast<unsigned long>(word));
    test_builtin<A>(static_cast<long long>(word));
    test_builtin<A>(static_cast<unsigned long long>(word));
  }
}

template <class A>
void test_unary() {
  for (int i = 0; i < kRounds; i++) {
    A a = any<A>();
    start("unary", a, a);
    show(-a);
    show(~a);
    show(+a);
    show(!a);
    show(a++);
    show(a);
    show(++a);
    show(a--);
    show(--a);
    show(a.to_int());
    show(a.to_uint());
    show(static_cast<long long>(a.to_int64()));
    show(static_cast<unsigned long long>(a.to_uint64()));
    const int bit = random_word() % A::width;
    show(a[bit] != 0);
    show(a[bit] == 0);
    const int by = static_cast<int>(random_word() % (2 * A::width + 140)) - A::width - 70;
    show(a << by);
    show(a >> by);
    show(a << unsigned(by + A::width + 70));
    show(a >> unsigned(by + A::width + 70));
  }
}
// The machine integer that a number of up to 64 bits is.
template <class A>
void test_native() {
  for (int i = 0; i < kRounds; i++) {
    const A a = any<A>();
    start("native", a, a);
    show(static_cast<bool>(a ? true : false));
    const long long as_long = a;
    const unsigned long long as_unsigned = a;
    const int as_int = static_cast<int>(a);
    show(as_long);
    show(as_unsigned);
    show(as_int);
    show(static_cast<unsigned>(a));
  }
}
