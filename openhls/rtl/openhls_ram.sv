// SPDX-License-Identifier: Apache-2.0
// A memory of DEPTH words with one read and one write port, behind ready/valid channels.
//
// Latency: a response follows its request by one cycle. One read and one write per cycle. A read
// sees the writes accepted in earlier cycles; with a write in its own cycle it returns the old
// word. Writes are always accepted. Words are undefined until written.
// Paths: rd_resp_rdy -> rd_req_rdy, so that the memory's output register is the only one.
// Resources: block RAM, or LUT RAM and WIDTH registers where the tool finds that smaller.
module openhls_ram #(
  parameter int WIDTH = 32,
  parameter int DEPTH = 512,
  localparam int AddrBits = DEPTH > 1 ? $clog2(DEPTH) : 1
) (
  input  logic                      clk,
  input  logic                      rst,
  input  logic [AddrBits-1:0]       rd_req_data,
  input  logic                      rd_req_vld,
  output logic                      rd_req_rdy,
  output logic [WIDTH-1:0]          rd_resp_data,
  output logic                      rd_resp_vld,
  input  logic                      rd_resp_rdy,
  input  logic [WIDTH+AddrBits-1:0] wr_req_data,  // {word, address}
  input  logic                      wr_req_vld,
  output logic                      wr_req_rdy
);
  logic [WIDTH-1:0] words[DEPTH];
  logic [WIDTH-1:0] resp_q;
  logic             resp_vld_q;

  assign rd_req_rdy   = !resp_vld_q || rd_resp_rdy;
  assign rd_resp_data = resp_q;
  assign rd_resp_vld  = resp_vld_q;
  assign wr_req_rdy   = 1'b1;

  always_ff @(posedge clk) begin
    // Whether or not it was asked: a request comes late, and `resp_vld_q` says if this is an answer.
    if (rd_req_rdy) resp_q <= words[rd_req_data];
    if (wr_req_vld) words[wr_req_data[AddrBits-1:0]] <= wr_req_data[AddrBits+:WIDTH];
    if (rst) resp_vld_q <= 1'b0;
    else if (rd_req_rdy) resp_vld_q <= rd_req_vld;
  end
endmodule
