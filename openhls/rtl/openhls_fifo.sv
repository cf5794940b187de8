// SPDX-License-Identifier: Apache-2.0
// A channel that holds DEPTH words, in order. All ends of it are registers, so that a path through
// a process ends soon after it has left the process.
//
// Latency: a word leaves two cycles after it entered (three with BLOCK, one with DEPTH 1). One word
// per cycle; with DEPTH 1 one in two cycles, because a word leaves before the next one enters.
// Paths: none from an input to an output. in_rdy and out_vld are registers.
// Resources: WIDTH registers; with DEPTH above 1 also LUT RAM (2/3 LUT per bit up to 32 words, 4/3
// up to 64), or with BLOCK block RAM, whose output register holds one word more; 2 to 40 LUTs of
// control. In front of the memory one word more may wait. Words of up to 8 bits leave from a
// register, as what a process decides by them comes late: WIDTH more registers and LUTs.
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
`ifdef __ICARUS__  // has no elaboration tasks
    initial
`endif
    $error("openhls_fifo: WIDTH and DEPTH must be at least 1");
  end

  // The word that came last. `in_rdy_q` equals `room_q`, for the port alone: the other one loads
  // WIDTH registers. `keep` is for Yosys, `dont_touch` for Vivado.
  logic [WIDTH-1:0] in_q;
  (* keep, dont_touch = "yes" *) logic in_rdy_q, room_q;
  logic             room_d;

  assign in_rdy = in_rdy_q;

  always_ff @(posedge clk) begin
    if (room_q) in_q <= in_data;
    in_rdy_q <= rst || room_d;
    room_q   <= rst || room_d;
  end

  if (DEPTH == 1) begin : gen_register
    logic full_q;

    assign out_data = in_q;
    assign out_vld  = full_q;
    assign room_d   = room_q ? !in_vld : out_rdy;

    always_ff @(posedge clk) full_q <= !rst && !room_d;
  end else begin : gen_memory
    localparam int PtrBits   = $clog2(DEPTH);
    localparam int CountBits = $clog2(DEPTH + 1);

    // A narrow word is shown from a register, `read_q` is the place of the one behind it.
    localparam bit Shown = !BLOCK && WIDTH <= 8;

    logic [PtrBits-1:0]   write_q, read_q;
    logic [CountBits-1:0] count_q, count_d;  // words in the memory
    logic                 in_vld_q, any_q, push, pop;

    assign push   = in_vld_q && room_q;
    assign room_d = pop || (push ? count_q != CountBits'(DEPTH - 1) : room_q);

    // Counters without a carry chain and without an enable: what comes late, `step` or `pop`,
    // passes one LUT.
    function automatic logic [PtrBits-1:0] next(input logic [PtrBits-1:0] pointer, input logic step);
      logic carry, last;
      carry = 1'b1;
      last  = DEPTH != 2 ** PtrBits && pointer == PtrBits'(DEPTH - 1);
      for (int i = 0; i < PtrBits; i++) begin
        next[i] = pointer[i] ^ (step && (last ? pointer[i] : carry));
        carry   = carry && pointer[i];
      end
    endfunction

    always_comb begin
      logic ones, zeros;
      ones  = 1'b1;
      zeros = 1'b1;
      for (int i = 0; i < CountBits; i++) begin
        count_d[i] = count_q[i] ^ ((push && !pop && ones) || (pop && !push && zeros));
        ones       = ones && count_q[i];
        zeros      = zeros && !count_q[i];
      end
    end

    always_ff @(posedge clk) begin
      if (rst) begin
        write_q  <= '0;
        read_q   <= Shown ? PtrBits'(1) : '0;
        count_q  <= '0;
        in_vld_q <= 1'b0;
        any_q    <= 1'b0;
      end else begin
        write_q <= next(write_q, push);
        read_q  <= next(read_q, pop);
        count_q <= count_d;
        any_q   <= push || (any_q && !(pop && count_q == CountBits'(1)));
        if (room_q) in_vld_q <= in_vld;
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
        if (push) words[write_q] <= in_q;
        if (pop) out_q <= words[read_q];
        if (rst) out_vld_q <= 1'b0;
        else if (pop) out_vld_q <= 1'b1;
        else if (out_rdy) out_vld_q <= 1'b0;
      end
    end else begin : gen_lut
      (* ram_style = "distributed" *) logic [WIDTH-1:0] words[DEPTH];

      assign pop     = out_vld && out_rdy;
      assign out_vld = any_q;

      always_ff @(posedge clk) if (push) words[write_q] <= in_q;

      if (Shown) begin : gen_shown
        logic [WIDTH-1:0] out_q;

        assign out_data = out_q;

        always_ff @(posedge clk)
          if (pop || !any_q) out_q <= count_q > CountBits'(1) ? words[read_q] : in_q;
      end else begin : gen_read
        assign out_data = words[read_q];
      end
    end
  end
endmodule
