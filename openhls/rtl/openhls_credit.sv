// SPDX-License-Identifier: Apache-2.0
// The free places of a FIFO, as tokens for its writer (openhls/credit.py). The writer takes a credit
// for every word, as many cycles before the word as it likes; a word that leaves the FIFO returns
// one.
//
// Latency: a credit is there two cycles after its word left. One credit per cycle.
// Paths: none from an input to an output. All ends are registers.
// Resources (up to 15 credits): 7 LUTs, 6 registers.
module openhls_credit #(
  parameter int CREDITS = 4
) (
  input  logic clk,
  input  logic rst,
  input  logic returned,
  output logic credit_data,
  output logic credit_vld,
  input  logic credit_rdy
);
  localparam int CountBits = $clog2(CREDITS + 1);

  logic [CountBits-1:0] count_q, count_d;
  logic                 vld_q, returned_q, carry, taken;

  assign credit_data = 1'b1;
  assign credit_vld  = vld_q;
  assign taken       = vld_q && credit_rdy;

  // One more or one less, without a carry chain.
  always_comb begin
    carry = 1'b1;
    for (int i = 0; i < CountBits; i++) begin
      count_d[i] = count_q[i] ^ carry;
      carry      = carry && (count_q[i] == returned_q);
    end
  end

  always_ff @(posedge clk) begin
    returned_q <= returned && !rst;
    if (rst) begin
      count_q <= CountBits'(CREDITS);
      vld_q   <= 1'b1;
    end else if (taken != returned_q) begin
      count_q <= count_d;
      vld_q   <= returned_q || count_q != CountBits'(1);
    end
  end
endmodule
