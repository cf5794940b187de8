// SPDX-License-Identifier: Apache-2.0
// Ports over the test bench's memories. Our stand-in of hls::burst_maxi has a name and a size and
// checks every access; AMD's own is made of a pointer and checks at its end what is left over.
#pragma once

#include <hls_burst_maxi.h>

#include <cstddef>
#include <type_traits>

namespace test_port {

template <class T>
constexpr bool has_size() {
  return std::is_constructible<hls::burst_maxi<T>, const char*, T*, std::size_t>::value;
}

template <class T>
hls::burst_maxi<T> open(const char* name, T* begin, std::size_t size, std::true_type) {
  return hls::burst_maxi<T>(name, begin, size);
}
template <class T>
hls::burst_maxi<T> open(const char*, T* begin, std::size_t, std::false_type) {
  return hls::burst_maxi<T>(begin);
}
template <class T>
hls::burst_maxi<T> open(const char* name, T* begin, std::size_t size) {
  return open(name, begin, size, std::integral_constant<bool, has_size<T>()>());
}

// Whether every requested burst was carried out; AMD's ports tell themselves.
template <class Port>
auto is_idle(const Port& port, int) -> decltype(port.idle()) {
  return port.idle();
}
template <class Port>
bool is_idle(const Port&, long) {
  return true;
}

}  // namespace test_port
