// SPDX-License-Identifier: Apache-2.0
// A channel that holds DEPTH words, in order.
//
// Latency: a word leaves one cycle after it entered (two with BLOCK). One word per cycle.
// Paths: none from an input to an output, except out_rdy -> in_rdy when DEPTH is 1.
// Resources: a register when DEPTH is 1; LUT RAM (2/3 LUT per bit up to 32 words, 4/3 up to 64);
// with BLOCK block RAM, whose output register holds one word more; 10 to 25 LUTs of control.
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

    assign in_rdy   = !full_q || out_rdy;
    assign out_data = word_q;
    assign out_vld  = full_q;

    always_ff @(posedge clk) begin
      if (in_rdy) word_q <= in_data;
      if (rst) full_q <= 1'b0;
      else if (in_rdy) full_q <= in_vld;
    end
  end else begin : gen_memory
    localparam int PtrBits   = $clog2(DEPTH);
    localparam int CountBits = $clog2(DEPTH + 1);

    logic [PtrBits-1:0]   write_q, read_q;
    logic [CountBits-1:0] count_q;  // words in the memory
    logic                 push, pop;

    assign in_rdy = count_q != CountBits'(DEPTH);
    assign push   = in_vld && in_rdy;

    always_ff @(posedge clk) begin
      if (rst) begin
        write_q <= '0;
        read_q  <= '0;
        count_q <= '0;
      end else begin
        if (push) write_q <= write_q == PtrBits'(DEPTH - 1) ? '0 : write_q + 1'b1;
        if (pop) read_q <= read_q == PtrBits'(DEPTH - 1) ? '0 : read_q + 1'b1;
        if (push && !pop) count_q <= count_q + 1'b1;
        if (pop && !push) count_q <= count_q - 1'b1;
      end
    end

    if (BLOCK) begin : gen_block
      (* ram_style = "block" *) logic [WIDTH-1:0] words[DEPTH];
      logic [WIDTH-1:0] out_q;
      logic             out_vld_q;

      assign pop      = count_q != '0 && (!out_vld_q || out_rdy);
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
      assign out_vld  = count_q != '0;

      always_ff @(posedge clk) if (push) words[write_q] <= in_data;
    end
  end
endmodule
