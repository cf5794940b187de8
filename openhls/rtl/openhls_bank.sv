// SPDX-License-Identifier: Apache-2.0
// A ping-pong memory: two halves of DEPTH words that go from a writer to a reader and back.
//
// Each side takes an acquire token, accesses its half, and sends a release token. The writer's token
// waits until a half is empty, the reader's until one is full; halves change sides in order. Reads
// and writes accepted in the cycle of a release, or before, belong to the half that is released. The
// reader holds at most one half; the writer may take the other before it releases the first. A half
// keeps the words that were not overwritten.
//
// Latency: a response follows its request by one cycle, an acquire token the release that permits
// it by one. One read and one write per cycle; writes and releases are always accepted. A reader
// must not release beside a read request that has to wait, which happens only if it leaves a
// response; processes of openhls request when they can take the answer. So a release depends on
// nothing that comes late.
// Paths: rd_resp_rdy -> rd_req_rdy.
// Resources: one memory of 2^ceil(log2 DEPTH) + DEPTH words (block RAM when that is large; the
// address needs no adder), 16 LUTs, 11 registers.
module openhls_bank #(
  parameter int WIDTH = 32,
  parameter int DEPTH = 512,
  localparam int AddrBits = DEPTH > 1 ? $clog2(DEPTH) : 1
) (
  input  logic                      clk,
  input  logic                      rst,
  output logic                      w_acquire_data,
  output logic                      w_acquire_vld,
  input  logic                      w_acquire_rdy,
  input  logic [WIDTH+AddrBits-1:0] wr_req_data,  // {word, address}
  input  logic                      wr_req_vld,
  output logic                      wr_req_rdy,
  input  logic                      w_release_data,
  input  logic                      w_release_vld,
  output logic                      w_release_rdy,
  output logic                      r_acquire_data,
  output logic                      r_acquire_vld,
  input  logic                      r_acquire_rdy,
  input  logic [AddrBits-1:0]       rd_req_data,
  input  logic                      rd_req_vld,
  output logic                      rd_req_rdy,
  output logic [WIDTH-1:0]          rd_resp_data,
  output logic                      rd_resp_vld,
  input  logic                      rd_resp_rdy,
  input  logic                      r_release_data,
  input  logic                      r_release_vld,
  output logic                      r_release_rdy
);
  // Block RAM, unless so small that the tool may choose.
  /* verilator lint_off UNUSEDPARAM */
  localparam Style = WIDTH * 2 ** (AddrBits + 1) >= 8192 ? "block" : "auto";
  /* verilator lint_on UNUSEDPARAM */

  // No request reads the half that is written (proved below), so a tool may give any word there.
  (* ram_style = Style, no_rw_check *) logic [WIDTH-1:0] words[2**AddrBits+DEPTH];
  logic [WIDTH-1:0] resp_q;
  logic             resp_vld_q;
  logic             w_half_q, r_half_q;  // the half that the side holds, or gets next
  logic             r_held_q, r_held_d;
  logic             w_acquire_vld_q, r_acquire_vld_q;  // looked up with the next state
  logic [1:0]       taken_q, taken_d;  // halves taken by the writer, not yet released by the reader
  logic [1:0]       full_q, full_d;  // of those, released by the writer
  logic             w_acquire, w_release, r_release;

  assign w_acquire_data = 1'b1;
  assign w_acquire_vld  = w_acquire_vld_q;
  assign w_acquire      = w_acquire_vld && w_acquire_rdy;
  assign wr_req_rdy     = 1'b1;
  assign w_release_rdy  = 1'b1;
  assign w_release      = w_release_vld && w_release_data;

  assign r_acquire_data = 1'b1;
  assign r_acquire_vld  = r_acquire_vld_q;
  assign rd_req_rdy     = !resp_vld_q || rd_resp_rdy;
  assign rd_resp_data   = resp_q;
  assign rd_resp_vld    = resp_vld_q;
  assign r_release_rdy  = 1'b1;
  assign r_release      = r_release_vld && r_release_data;

  assign taken_d  = taken_q + {1'b0, w_acquire} - {1'b0, r_release};
  assign full_d   = full_q + {1'b0, w_release} - {1'b0, r_release};
  assign r_held_d = (r_held_q || (r_acquire_vld && r_acquire_rdy)) && !r_release;

  always_ff @(posedge clk) begin
    // Whether or not it was asked: a request comes late, and `resp_vld_q` says if this is an answer.
    if (rd_req_rdy) resp_q <= words[{r_half_q, rd_req_data}];
    if (wr_req_vld) words[{w_half_q, wr_req_data[AddrBits-1:0]}] <= wr_req_data[AddrBits+:WIDTH];
    if (rst) begin
      resp_vld_q      <= 1'b0;
      w_half_q        <= 1'b0;
      r_half_q        <= 1'b0;
      r_held_q        <= 1'b0;
      taken_q         <= '0;
      full_q          <= '0;
      w_acquire_vld_q <= 1'b1;
      r_acquire_vld_q <= 1'b0;
    end else begin
      if (rd_req_rdy) resp_vld_q <= rd_req_vld;
      w_half_q        <= w_half_q ^ w_release;
      r_half_q        <= r_half_q ^ r_release;
      r_held_q        <= r_held_d;
      taken_q         <= taken_d;
      full_q          <= full_d;
      w_acquire_vld_q <= !taken_d[1];
      r_acquire_vld_q <= !r_held_d && full_d != '0;
    end
  end

`ifdef OPENHLS_PROOF
  // `promised`: what both sides promise, assumed. `reached`: what holds in every state then, proved
  // by induction. `apart`: what is wanted.
  logic w_holds, r_holds, promised, reached, apart;
  logic was_reset_q = 1'b0;

  assign w_holds  = taken_q != full_q || w_acquire;
  assign r_holds  = r_held_q || (r_acquire_vld && r_acquire_rdy);
  assign promised = (w_holds || !(wr_req_vld || w_release))
      && (r_holds || !(rd_req_vld || r_release));
  assign reached  = full_q <= taken_q && taken_q <= 2'd2 && (w_half_q ^ r_half_q) == full_q[0]
      && (!r_held_q || full_q != '0) && w_acquire_vld_q == !taken_q[1]
      && r_acquire_vld_q == (!r_held_q && full_q != '0);
  assign apart    = !(wr_req_vld && rd_req_vld) || w_half_q != r_half_q;

  always_ff @(posedge clk) begin
    was_reset_q <= was_reset_q || rst;
    if (!rst && was_reset_q) begin
      assume (promised);
      assert (reached && apart);
    end
  end
`endif
endmodule
