// SPDX-License-Identifier: Apache-2.0
// An AXI4 read master: takes requests {length, offset} in words of DATA_BITS and returns the words.
//
// Requests are cut into INCR bursts by openhls_axi_split (see there for `base`); up to OUTSTANDING
// bursts are under way. A burst is requested only when the FIFO has room for all of it, so rready
// never falls and a slow consumer blocks nobody else. REQUESTS + 1 requests are accepted, and
// FIFO_DEPTH words fetched, before any word is taken; a request of no words is dropped.
// `error` is set by a response other than OKAY and stays until `clear`; the words of a failed
// burst are delivered as they come. `idle`: every word requested has been taken. `halt` keeps it from
// new bursts; `drained`: none is under way or offered, so that a reset cuts nothing off.
//
// Latency: arvalid four cycles after the request, a word one cycle after its R beat. A word per
// cycle if FIFO_DEPTH covers the memory's latency and bursts have two words or more; a request of n
// bursts takes 2 n + 1 cycles.
// Paths: none from an input to an output.
// Resources (64 bits, defaults): 210 LUTs, 130 more as LUT RAM, 200 registers.
module openhls_axi_reader #(
  parameter int DATA_BITS   = 64,
  parameter int ADDR_BITS   = 64,
  parameter int MAX_BURST   = 16,
  parameter int OUTSTANDING = 8,
  parameter int FIFO_DEPTH  = 64,
  parameter int REQUESTS    = 8
) (
  input  logic                 clk,
  input  logic                 rst,
  input  logic [ADDR_BITS-1:0] base,
  input  logic                 clear,
  output logic                 error,
  output logic                 idle,
  input  logic                 halt,
  output logic                 drained,

  input  logic [63:0]          ar_data,
  input  logic                 ar_vld,
  output logic                 ar_rdy,
  output logic [DATA_BITS-1:0] r_data,
  output logic                 r_vld,
  input  logic                 r_rdy,

  output logic [ADDR_BITS-1:0] m_axi_araddr,
  output logic [7:0]           m_axi_arlen,
  output logic [2:0]           m_axi_arsize,
  output logic [1:0]           m_axi_arburst,
  output logic [3:0]           m_axi_arcache,
  output logic [2:0]           m_axi_arprot,
  output logic                 m_axi_arvalid,
  input  logic                 m_axi_arready,
  input  logic [DATA_BITS-1:0] m_axi_rdata,
  input  logic [1:0]           m_axi_rresp,
  input  logic                 m_axi_rlast,
  input  logic                 m_axi_rvalid,
  output logic                 m_axi_rready
);
  localparam int CreditBits  = FIFO_DEPTH > 255 ? $clog2(FIFO_DEPTH + 1) : 8;
  localparam int UnderBits   = $clog2(OUTSTANDING + 1);
  localparam int PendingBits = $clog2(REQUESTS + 4);

  if (FIFO_DEPTH < MAX_BURST && FIFO_DEPTH * DATA_BITS < 4096 * 8) begin : gen_depth
`ifdef __ICARUS__  // has no elaboration tasks
    initial
`endif
    $error("openhls_axi_reader: FIFO_DEPTH must hold a burst");
  end

  logic burst_last, burst_empty, burst_vld, burst_rdy;

  openhls_axi_split #(
    .DATA_BITS(DATA_BITS),
    .ADDR_BITS(ADDR_BITS),
    .MAX_BURST(MAX_BURST),
    .REQUESTS (REQUESTS)
  ) u_split (
    .clk,
    .rst,
    .base,
    .in_data   (ar_data),
    .in_vld    (ar_vld),
    .in_rdy    (ar_rdy),
    .burst_addr(m_axi_araddr),
    .burst_len (m_axi_arlen),
    .burst_last,
    .burst_empty,
    .burst_vld,
    .burst_rdy
  );

  openhls_fifo #(
    .WIDTH(DATA_BITS),
    .DEPTH(FIFO_DEPTH)
  ) u_words (
    .clk,
    .rst,
    .in_data (m_axi_rdata),
    .in_vld  (m_axi_rvalid),
    .in_rdy  (m_axi_rready),
    .out_data(r_data),
    .out_vld (r_vld),
    .out_rdy (r_rdy)
  );

  logic [CreditBits-1:0]  credit_q, taken;  // words of the FIFO not yet promised to a burst
  logic [UnderBits-1:0]   under_q;          // bursts under way
  logic [PendingBits-1:0] pending_q;        // requests not yet turned into bursts
  logic                   asked_q;          // a request came a cycle before
  logic                   error_q;
  logic                   fits_q;           // the burst offered may be issued
  logic                   issue, finish, beat;

  // Looked up a cycle before: until the burst is issued, credit only grows and the bursts under way
  // only fall, so it stays valid.
  assign m_axi_arvalid = fits_q;
  assign m_axi_arsize  = 3'($clog2(DATA_BITS / 8));
  assign m_axi_arburst = 2'b01;
  assign m_axi_arcache = 4'b0011;
  assign m_axi_arprot  = 3'b000;

  assign issue     = m_axi_arvalid && m_axi_arready;
  assign burst_rdy = issue || burst_empty;
  assign finish    = burst_vld && burst_rdy && burst_last;
  assign beat      = m_axi_rvalid && m_axi_rready;
  assign taken     = issue ? CreditBits'(m_axi_arlen) + 1'b1 : '0;

  always_ff @(posedge clk) begin
    if (rst) begin
      fits_q    <= 1'b0;
      credit_q  <= CreditBits'(FIFO_DEPTH);
      under_q   <= '0;
      pending_q <= '0;
      asked_q   <= 1'b0;
      error_q   <= 1'b0;
    end else begin
      fits_q    <= burst_vld && !burst_empty && !issue && credit_q > CreditBits'(m_axi_arlen)
                   && under_q != UnderBits'(OUTSTANDING) && (!halt || fits_q);
      credit_q  <= credit_q - taken + CreditBits'(r_vld && r_rdy);
      under_q   <= under_q + UnderBits'(issue) - UnderBits'(beat && m_axi_rlast);
      asked_q   <= ar_vld && ar_rdy;
      pending_q <= pending_q + PendingBits'(asked_q) - PendingBits'(finish);
      error_q   <= (error_q && !clear) || (beat && m_axi_rresp != 2'b00);
    end
  end

  assign error   = error_q;
  assign drained = !fits_q && under_q == '0;
  assign idle    = !asked_q && pending_q == '0 && credit_q == CreditBits'(FIFO_DEPTH);
endmodule
