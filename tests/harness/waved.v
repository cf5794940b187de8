// SPDX-License-Identifier: Apache-2.0
// A design to write waveforms of: a wide register that is mostly noise, a counter, seldom changes.
module waved (
    input wire clk,
    input wire rst,
    input wire [69:0] noise,
    output reg [69:0] state,
    output reg [3:0] count,
    output wire odd
);
  wire [69:0] next = {state[68:0], state[69] ^ state[4] ^ 1'b1};
  assign odd = ^state;
  always @(posedge clk) begin
    if (rst) begin
      state <= 70'd0;
      count <= 4'd0;
    end else begin
      state <= next ^ noise;
      count <= count + 4'd1;
    end
  end
endmodule
