// SPDX-License-Identifier: Apache-2.0
// Queues requests for words and cuts them into AXI4 INCR bursts, for openhls_axi_reader and
// openhls_axi_writer. REQUESTS + 1 of them are accepted before a burst is taken.
//
// A burst ends at multiples of BURST words (MAX_BURST, less if that is over 4 KiB), counted from
// address 0: then it never crosses a multiple of 4 KiB, and all bursts of a long request but the
// first begin there. A request of no words gives one burst marked empty.
//
// Latency: three cycles. A request of n bursts takes n + 1 cycles. `base` must be a multiple of the
// word's bytes and stay the same while requests are pending; offset + length must be below 2^32.
// Resources (64 bits, defaults): 155 LUTs, 40 more as LUT RAM, 160 registers.
module openhls_axi_split #(
  parameter int DATA_BITS = 64,
  parameter int ADDR_BITS = 64,
  parameter int MAX_BURST = 16,
  parameter int REQUESTS  = 8
) (
  input  logic                 clk,
  input  logic                 rst,
  input  logic [ADDR_BITS-1:0] base,
  input  logic [63:0]          in_data,  // {length, offset} in words
  input  logic                 in_vld,
  output logic                 in_rdy,
  output logic [ADDR_BITS-1:0] burst_addr,
  output logic [7:0]           burst_len,  // beats - 1
  output logic                 burst_last,
  output logic                 burst_empty,
  output logic                 burst_vld,
  input  logic                 burst_rdy
);
  localparam int Shift = $clog2(DATA_BITS / 8);
  localparam int Burst = (MAX_BURST << Shift) > 4096 ? 4096 >> Shift : MAX_BURST;
  localparam logic [8:0] Mask = 9'(Burst - 1);

  if (DATA_BITS < 8 || DATA_BITS > 1024 || (DATA_BITS & (DATA_BITS - 1)) != 0) begin : gen_bits
`ifdef __ICARUS__  // has no elaboration tasks
    initial
`endif
    $error("openhls_axi_split: DATA_BITS must be a power of two in 8..1024");
  end
  if (MAX_BURST < 1 || MAX_BURST > 256 || (MAX_BURST & (MAX_BURST - 1)) != 0) begin : gen_burst
`ifdef __ICARUS__  // has no elaboration tasks
    initial
`endif
    $error("openhls_axi_split: MAX_BURST must be a power of two in 1..256");
  end

  logic [63:0] req_data;
  logic        req_vld, req_rdy;

  openhls_fifo #(
    .WIDTH(64),
    .DEPTH(REQUESTS)
  ) u_requests (
    .clk,
    .rst,
    .in_data,
    .in_vld,
    .in_rdy,
    .out_data(req_data),
    .out_vld (req_vld),
    .out_rdy (req_rdy)
  );

  // The request in work: what is left of it, and the words up to the next boundary.
  logic        busy_q;
  logic [31:0] offset_q, left_q;
  logic [8:0]  room_q, beats, first;
  logic        last, step;

  // The burst offered.
  logic                 vld_q, last_q, empty_q;
  logic [ADDR_BITS-1:0] addr_q;
  logic [7:0]           len_q;

  assign req_rdy = !busy_q;
  assign first   = (9'(base >> Shift) + req_data[8:0]) & Mask;
  assign last    = left_q <= 32'(room_q);
  assign beats   = last ? left_q[8:0] : room_q;
  assign step    = busy_q && (!vld_q || burst_rdy);

  always_ff @(posedge clk) begin
    if (req_rdy) begin
      offset_q <= req_data[31:0];
      left_q   <= req_data[63:32];
      room_q   <= 9'(Burst) - first;
    end else if (step) begin  // not used after the last burst, so `last` does not matter
      offset_q <= offset_q + 32'(room_q);
      left_q   <= left_q - 32'(room_q);
      room_q   <= 9'(Burst);
    end
    if (step) begin
      addr_q  <= base + (ADDR_BITS'(offset_q) << Shift);
      len_q   <= 8'(beats - 9'd1);
      last_q  <= last;
      empty_q <= left_q == '0;
    end
    if (rst) begin
      busy_q <= 1'b0;
      vld_q  <= 1'b0;
    end else begin
      if (req_rdy) busy_q <= req_vld;
      else if (step && last) busy_q <= 1'b0;
      if (step) vld_q <= 1'b1;
      else if (burst_rdy) vld_q <= 1'b0;
    end
  end

  assign burst_addr  = addr_q;
  assign burst_len   = len_q;
  assign burst_last  = last_q;
  assign burst_empty = empty_q;
  assign burst_vld   = vld_q;
endmodule
