// SPDX-License-Identifier: Apache-2.0
// An AXI4 write master: takes requests {length, offset} in words of DATA_BITS and their words, and
// returns a token on `b` when the memory has acknowledged all bursts of a request.
//
// Requests are cut into INCR bursts by openhls_axi_split (see there for `base`); up to OUTSTANDING
// bursts are under way. A burst is offered only when all its words are in the FIFO, so a slow
// producer never blocks the bus. REQUESTS + 1 requests are accepted before any word; words may
// come before their request. A request of no words gives its token in turn, without a burst.
// `error` is set by a response other than OKAY and stays until `clear`; the token comes all the
// same. `idle`: every request has been acknowledged (its token may still wait in `b`, which keeps
// up to 65535). `halt` keeps it from new bursts; `drained`: all bursts offered have their response, so
// that a reset cuts nothing off.
//
// Latency: awvalid and wvalid four cycles after the burst's last word; neither waits for awready or
// wready. A word per cycle if FIFO_DEPTH is two bursts or more and bursts have two words or more; a
// token in two cycles.
// Paths: none from an input to an output.
// Resources (64 bits, defaults): 270 LUTs, 100 more as LUT RAM, 320 registers.
module openhls_axi_writer #(
  parameter int DATA_BITS   = 64,
  parameter int ADDR_BITS   = 64,
  parameter int MAX_BURST   = 16,
  parameter int OUTSTANDING = 8,
  parameter int FIFO_DEPTH  = 32,
  parameter int REQUESTS    = 8
) (
  input  logic                   clk,
  input  logic                   rst,
  input  logic [ADDR_BITS-1:0]   base,
  input  logic                   clear,
  output logic                   error,
  output logic                   idle,
  input  logic                   halt,
  output logic                   drained,

  input  logic [63:0]            aw_data,
  input  logic                   aw_vld,
  output logic                   aw_rdy,
  input  logic [DATA_BITS-1:0]   w_data,
  input  logic                   w_vld,
  output logic                   w_rdy,
  output logic                   b_data,
  output logic                   b_vld,
  input  logic                   b_rdy,

  output logic [ADDR_BITS-1:0]   m_axi_awaddr,
  output logic [7:0]             m_axi_awlen,
  output logic [2:0]             m_axi_awsize,
  output logic [1:0]             m_axi_awburst,
  output logic [3:0]             m_axi_awcache,
  output logic [2:0]             m_axi_awprot,
  output logic                   m_axi_awvalid,
  input  logic                   m_axi_awready,
  output logic [DATA_BITS-1:0]   m_axi_wdata,
  output logic [DATA_BITS/8-1:0] m_axi_wstrb,
  output logic                   m_axi_wlast,
  output logic                   m_axi_wvalid,
  input  logic                   m_axi_wready,
  input  logic [1:0]             m_axi_bresp,
  input  logic                   m_axi_bvalid,
  output logic                   m_axi_bready
);
  localparam int CountBits   = FIFO_DEPTH > 254 ? $clog2(FIFO_DEPTH + 2) : 8;
  localparam int UnderBits   = $clog2(OUTSTANDING + 4);
  localparam int PendingBits = $clog2(REQUESTS + OUTSTANDING + 4);

  if (FIFO_DEPTH < MAX_BURST && FIFO_DEPTH * DATA_BITS < 4096 * 8) begin : gen_depth
`ifdef __ICARUS__  // has no elaboration tasks
    initial
`endif
    $error("openhls_axi_writer: FIFO_DEPTH must hold a burst");
  end

  logic [ADDR_BITS-1:0] burst_addr;
  logic [7:0]           burst_len;
  logic                 burst_last, burst_empty, burst_vld, burst_rdy;

  openhls_axi_split #(
    .DATA_BITS(DATA_BITS),
    .ADDR_BITS(ADDR_BITS),
    .MAX_BURST(MAX_BURST),
    .REQUESTS (REQUESTS)
  ) u_split (
    .clk,
    .rst,
    .base,
    .in_data   (aw_data),
    .in_vld    (aw_vld),
    .in_rdy    (aw_rdy),
    .burst_addr,
    .burst_len,
    .burst_last,
    .burst_empty,
    .burst_vld,
    .burst_rdy
  );

  // The words, and the lengths of the bursts that they belong to.
  logic       word_vld, word_rdy;
  logic       len_in_vld, len_in_rdy, len_vld, len_rdy;
  logic [7:0] len;

  openhls_fifo #(
    .WIDTH(DATA_BITS),
    .DEPTH(FIFO_DEPTH)
  ) u_words (
    .clk,
    .rst,
    .in_data (w_data),
    .in_vld  (w_vld),
    .in_rdy  (w_rdy),
    .out_data(m_axi_wdata),
    .out_vld (word_vld),
    .out_rdy (word_rdy)
  );

  openhls_fifo #(
    .WIDTH(8),
    .DEPTH(OUTSTANDING)
  ) u_lens (
    .clk,
    .rst,
    .in_data (burst_len),
    .in_vld  (len_in_vld),
    .in_rdy  (len_in_rdy),
    .out_data(len),
    .out_vld (len_vld),
    .out_rdy (len_rdy)
  );

  // The bursts without a response yet.
  logic order_vld, order_rdy, order_in_rdy, order_last, order_empty;

  openhls_fifo #(
    .WIDTH(2),
    .DEPTH(OUTSTANDING)
  ) u_order (
    .clk,
    .rst,
    .in_data ({burst_last, burst_empty}),
    .in_vld  (burst_rdy),
    .in_rdy  (order_in_rdy),
    .out_data({order_last, order_empty}),
    .out_vld (order_vld),
    .out_rdy (order_rdy)
  );

  logic                   aw_vld_q;
  logic [ADDR_BITS-1:0]   aw_addr_q;
  logic [7:0]             aw_len_q;
  logic [CountBits-1:0]   count_q, taken;  // words in the FIFO not yet promised to a burst
  logic [7:0]             beat_q;
  logic [15:0]            tokens_q;
  logic [PendingBits-1:0] pending_q;       // requests without a token yet
  logic                   error_q;
  logic                   fits_q;          // the FIFO holds all words of the burst offered, which may go
  logic                   b_vld_q, b_move;
  logic                   ready, issue, finish, answered;
  logic [UnderBits-1:0]   under_q;         // bursts offered that have no response yet
  logic                   came_q, asked_q;  // a word, a request has come: what is late, kept once

  // Looked up a cycle before: until the burst is issued, words only get more.
  assign ready      = len_in_rdy && (!aw_vld_q || m_axi_awready) && fits_q;
  assign burst_rdy  = burst_vld && order_in_rdy && (burst_empty || ready);
  assign issue      = burst_rdy && !burst_empty;
  assign len_in_vld = issue;
  assign taken      = issue ? CountBits'(burst_len) + 1'b1 : '0;

  assign m_axi_awaddr  = aw_addr_q;
  assign m_axi_awlen   = aw_len_q;
  assign m_axi_awsize  = 3'($clog2(DATA_BITS / 8));
  assign m_axi_awburst = 2'b01;
  assign m_axi_awcache = 4'b0011;
  assign m_axi_awprot  = 3'b000;
  assign m_axi_awvalid = aw_vld_q;

  assign m_axi_wstrb  = '1;
  assign m_axi_wlast  = beat_q == len;
  assign m_axi_wvalid = len_vld && word_vld;
  assign word_rdy     = len_vld && m_axi_wready;
  assign len_rdy      = word_vld && m_axi_wready && m_axi_wlast;

  assign m_axi_bready = order_vld && !order_empty && tokens_q != '1;
  assign order_rdy    = tokens_q != '1 && (order_empty || m_axi_bvalid);
  assign answered     = m_axi_bvalid && m_axi_bready;
  assign finish       = order_vld && order_rdy && order_last;
  assign b_data       = 1'b1;
  assign b_vld        = b_vld_q;
  assign b_move       = !b_vld_q && tokens_q != '0;

  always_ff @(posedge clk) begin
    if (issue) begin
      aw_addr_q <= burst_addr;
      aw_len_q  <= burst_len;
    end
    if (rst) begin
      aw_vld_q  <= 1'b0;
      fits_q    <= 1'b0;
      b_vld_q   <= 1'b0;
      count_q   <= '0;
      came_q    <= 1'b0;
      asked_q   <= 1'b0;
      beat_q    <= '0;
      tokens_q  <= '0;
      pending_q <= '0;
      under_q   <= '0;
      error_q   <= 1'b0;
    end else begin
      if (issue) aw_vld_q <= 1'b1;
      else if (m_axi_awready) aw_vld_q <= 1'b0;
      fits_q  <= burst_vld && !burst_rdy && count_q > CountBits'(burst_len) && !halt;
      count_q <= count_q - taken + CountBits'(came_q);
      came_q  <= w_vld && w_rdy;
      asked_q <= aw_vld && aw_rdy;
      if (m_axi_wvalid && m_axi_wready) beat_q <= m_axi_wlast ? '0 : beat_q + 1'b1;
      tokens_q  <= tokens_q + 16'(finish) - 16'(b_move);
      b_vld_q   <= b_vld_q ? !b_rdy : b_move;
      under_q   <= under_q + UnderBits'(issue) - UnderBits'(answered);
      pending_q <= pending_q + PendingBits'(asked_q) - PendingBits'(finish);
      error_q   <= (error_q && !clear)
                   || (m_axi_bvalid && m_axi_bready && m_axi_bresp != 2'b00);
    end
  end

  assign error   = error_q;
  assign drained = under_q == '0 && !fits_q;
  assign idle    = pending_q == '0 && !asked_q;
endmodule
