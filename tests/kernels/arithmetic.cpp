// SPDX-License-Identifier: Apache-2.0
// One of everything that ap_int computes: operands of odd widths and signs, every operator.
// operands: {operation, b: 13, a: 23}
#include <ap_int.h>
#include <hls_stream.h>

template <class A, class B>
ap_int<64> compute(ap_uint<5> operation, A a, B b) {
  switch (int(operation)) {
    case 0:
      return ap_int<64>(a + b);
    case 1:
      return ap_int<64>(a - b);
    case 2:
      return ap_int<64>(a * b);
    case 3:
      return ap_int<64>(a & b);
    case 4:
      return ap_int<64>(a | b);
    case 5:
      return ap_int<64>(a ^ b);
    case 6:
      return ap_int<64>(~a);
    case 7:
      return ap_int<64>(-b);
    case 8:
      return ap_int<64>(a << ap_uint<4>(b));
    case 9:
      return ap_int<64>(a >> ap_uint<6>(b));
    case 10:
      return a < b;
    case 11:
      return a <= b;
    case 12:
      return a == b;
    case 13:
      return a > 100;
    case 14:
      return ap_int<64>(a + 1000000);
    case 15:
      return ap_int<64>(7u - b);
    case 16:
      return ap_int<64>(a * -3);
    case 17:
      return ap_int<64>(ap_int<7>(a));
    case 18:
      return ap_int<64>(ap_uint<5>(b));
    case 19:
      a += b;
      return ap_int<64>(a);
    case 20:
      a -= 5;
      return ap_int<64>(a);
    case 21:
      b <<= 3;
      return ap_int<64>(b);
    case 22:
      b >>= 2;
      return ap_int<64>(b);
    case 23:
      a++;
      --b;
      return ap_int<64>(a ^ b);
    case 24:
      return ap_int<64>(a.range(11, 4));
    case 25:
      a.range(9, 3) = b;
      return ap_int<64>(a);
    case 26:
      a[5] = b[2];
      return ap_int<64>(a);
    case 27:
      return !a || b > 0;
    case 28:
      return ap_int<64>(a << 30);
    case 29:
      return ap_int<64>(a != b ? int(a) : int(b));
    case 30:
      return ap_int<64>(ap_int<100>(a) << 70 >> 65);
    default:
      return ap_int<64>((ap_uint<80>(a) * b) >> 3);
  }
}

void arithmetic(hls::stream<ap_uint<42>>& operands, hls::stream<ap_uint<256>>& results) {
  ap_uint<1> last;
each_operand:
  do {
#pragma HLS pipeline II = 1
    ap_uint<42> token = operands.read();
    ap_uint<5> operation = ap_uint<5>(token >> 36);
    last = ap_uint<1>(token >> 41);
    ap_uint<23> a = ap_uint<23>(token);
    ap_uint<13> b = ap_uint<13>(token >> 23);
    ap_int<23> sa = ap_int<23>(a);
    ap_int<13> sb = ap_int<13>(b);
    ap_uint<256> result = ap_uint<64>(compute(operation, a, b));
    result = (result << 64) | ap_uint<64>(compute(operation, sa, b));
    result = (result << 64) | ap_uint<64>(compute(operation, a, sb));
    result = (result << 64) | ap_uint<64>(compute(operation, sa, sb));
    results.write(result);
  } while (!last);
}
