// SPDX-License-Identifier: Apache-2.0
// A channel that holds DEPTH words, in order.
//
// Latency: a word leaves one cycle after it entered (two with BLOCK). One word per cycle; with
// DEPTH 1 one in two cycles, because a word leaves before the next one enters.
// Paths: none from an input to an output. in_rdy and, without BLOCK up to 8 words, out_vld are
// registers.
// Resources: WIDTH registers when DEPTH is 1; LUT RAM (2/3 LUT per bit up to 32 words, 4/3 up to
// 64); with BLOCK block RAM, whose output register holds one word more; 3 to 25 LUTs of control.
module openhls_fifo #(
  parameter int WIDTH = 32,
  parameter int DEPTH = 2,
  parameter bit BLOCK = DEPTH > 64 && WIDTH * DEPTH >= 4096
) (
  input  logic             clk,
  input  logic             rst,
  input  logic [WIDTH-1:0] in_data,
  input  logic             in_vld,
  output logic             in_rdy,
  output logic [WIDTH-1:0] out_data,
  output logic             out_vld,
  input  logic             out_rdy
);
  if (DEPTH < 1 || WIDTH < 1) begin : gen_illegal
    $error("openhls_fifo: WIDTH and DEPTH must be at least 1");
  end

  if (DEPTH == 1) begin : gen_register
    logic [WIDTH-1:0] word_q;
    logic             full_q;

    assign in_rdy   = !full_q;
    assign out_data = word_q;
    assign out_vld  = full_q;

    always_ff @(posedge clk) begin
      if (!full_q) word_q <= in_data;
      if (rst) full_q <= 1'b0;
      else full_q <= full_q ? !out_rdy : in_vld;
    end
  end else begin : gen_memory
    localparam int PtrBits = $clog2(DEPTH);

    logic [PtrBits-1:0] write_q, read_q;
    logic               full_q, any_q;  // of the memory
    logic               push, pop;

    assign in_rdy = !full_q;
    assign push   = in_vld && in_rdy;

    // Without a carry chain, which costs a level even for two bits.
    function automatic logic [PtrBits-1:0] next(input logic [PtrBits-1:0] pointer);
      logic carry;
      carry = 1'b1;
      for (int i = 0; i < PtrBits; i++) begin
        next[i] = pointer[i] ^ carry;
        carry   = carry && pointer[i];
      end
      if (DEPTH != 2 ** PtrBits && pointer == PtrBits'(DEPTH - 1)) next = '0;
    endfunction

    always_ff @(posedge clk) begin
      if (rst) begin
        write_q <= '0;
        read_q  <= '0;
      end else begin
        if (push) write_q <= next(write_q);
        if (pop) read_q <= next(read_q);
      end
    end

    if (DEPTH <= 8) begin : gen_levels
      logic [DEPTH-1:0] above_q;  // bit i: more than i words

      assign full_q = above_q[DEPTH-1];
      assign any_q  = above_q[0];

      always_ff @(posedge clk) begin
        if (rst) above_q <= '0;
        else if (push != pop) above_q <= push ? {above_q[DEPTH-2:0], 1'b1} : above_q >> 1;
      end
    end else begin : gen_count
      localparam int CountBits = $clog2(DEPTH + 1);
      logic [CountBits-1:0] count_q;

      assign any_q = count_q != '0;

      always_ff @(posedge clk) begin
        if (rst) begin
          count_q <= '0;
          full_q  <= 1'b0;
        end else if (push != pop) begin
          count_q <= count_q + {{(CountBits - 1) {!push}}, 1'b1};  // +1 or -1, one adder
          full_q  <= push && count_q == CountBits'(DEPTH - 1);
        end
      end
    end

    if (BLOCK) begin : gen_block
      (* ram_style = "block" *) logic [WIDTH-1:0] words[DEPTH];
      logic [WIDTH-1:0] out_q;
      logic             out_vld_q;

      assign pop      = any_q && (!out_vld_q || out_rdy);
      assign out_data = out_q;
      assign out_vld  = out_vld_q;

      always_ff @(posedge clk) begin
        if (push) words[write_q] <= in_data;
        if (pop) out_q <= words[read_q];
        if (rst) out_vld_q <= 1'b0;
        else if (pop) out_vld_q <= 1'b1;
        else if (out_rdy) out_vld_q <= 1'b0;
      end
    end else begin : gen_lut
      (* ram_style = "distributed" *) logic [WIDTH-1:0] words[DEPTH];

      assign pop      = out_vld && out_rdy;
      assign out_data = words[read_q];
      assign out_vld  = any_q;

      always_ff @(posedge clk) if (push) words[write_q] <= in_data;
    end
  end
endmodule
