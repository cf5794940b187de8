// SPDX-License-Identifier: Apache-2.0
// C = A B for 6 x 6 matrices of bytes; rows of A and columns of B arrive as words of six.
#include <ap_int.h>
#include <hls_ram.h>
#include <hls_stream.h>

constexpr int kSize = 6;
typedef ap_uint<8 * kSize> Vector;

void matmul(hls::stream<Vector>& rows, hls::stream<Vector>& columns,
            hls::stream<ap_int<20>>& products) {
  hls::ram<Vector, kSize> a, b;
load:
  for (int i = 0; i < kSize; i++) {
#pragma HLS pipeline II = 1
    a.write(i, rows.read());
    b.write(i, columns.read());
  }
each_row:
  for (int i = 0; i < kSize; i++) {
  each_column:
    for (int j = 0; j < kSize; j++) {
#pragma HLS pipeline II = 1
      Vector row = a.read(i), column = b.read(j);
      ap_int<20> sum = 0;
      for (int k = 0; k < kSize; k++) {
#pragma HLS unroll
        sum += ap_int<8>(row >> (8 * k)) * ap_int<8>(column >> (8 * k));
      }
      products.write(sum);
    }
  }
}
