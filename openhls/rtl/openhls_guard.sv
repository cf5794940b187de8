// SPDX-License-Identifier: Apache-2.0
// Ends a run that does not end by itself, and counts the cycles of every run.
//
// A run is stopped when no beat has moved on any AXI master for `limit` cycles (0: never), or by a
// pulse of `cancel`. Then `region_rst` puts processes, FIFOs and memories into reset, and `halt` keeps
// the masters from new bursts. Once their bursts under way are done (`drained`), `masters_rst` clears
// them too, both resets end, and `stopped` tells the end of the run. So nothing is left of it, and AXI
// never sees a transaction cut off.
//
// A memory that never answers cannot be waited for: after another `limit` cycles without a beat
// (65,536 if it is 0) `stopped` comes all the same, and `undrained` stays until the memory has answered.
// Until then nothing starts: a run asked for meanwhile is stopped in the same way.
//
// `reason`, of the last run: 1 no beat, 2 cancel; 0 it ended by itself.
//
// Paths: none from an input to an output.
// Resources: 130 LUTs, 110 registers.
module openhls_guard (
  input  logic        clk,
  input  logic        rst,
  input  logic [31:0] limit,
  input  logic        running,
  input  logic        cancel,
  input  logic        beat,
  input  logic        drained,

  output logic        halt,
  output logic        region_rst,
  output logic        masters_rst,
  output logic        stopped,
  output logic        undrained,
  output logic [1:0]  reason,
  output logic [31:0] cycles
);
  typedef enum logic [1:0] {
    Idle,
    Halt,   // the region is in reset, the masters finish their bursts
    Clear,  // the masters are in reset
    Leave   // all resets end
  } state_e;

  state_e      state_q;
  logic        running_q, owed_q, stopped_q, undrained_q, region_rst_q, masters_rst_q, off_q;
  logic [1:0]  reason_q;
  logic [31:0] cycles_q;
  logic [32:0] left_q;  // cycles until a run without a beat has hung; below 0: it has
  logic        starts, expired;

  assign starts      = running && !running_q;
  assign expired     = left_q[32];
  assign halt        = state_q != Idle;
  assign region_rst  = region_rst_q;
  assign masters_rst = masters_rst_q;
  assign stopped     = stopped_q;
  assign undrained   = undrained_q;
  assign reason      = reason_q;
  assign cycles      = cycles_q;

  always_ff @(posedge clk) begin
    off_q <= limit == '0;
    if (beat || starts || stopped_q) left_q <= off_q && halt ? 33'h10000 : {1'b0, limit};
    else if (!off_q || halt) left_q <= left_q - 33'(!expired);
    if (rst) begin
      state_q       <= Idle;
      running_q     <= 1'b0;
      stopped_q     <= 1'b0;
      owed_q        <= 1'b0;
      undrained_q   <= 1'b0;
      region_rst_q  <= 1'b1;
      masters_rst_q <= 1'b1;
      reason_q      <= '0;
      cycles_q      <= '0;
      left_q        <= '0;
    end else begin
      running_q     <= running;
      stopped_q     <= 1'b0;
      if (!running) owed_q <= 1'b0;
      region_rst_q  <= state_q == Halt || state_q == Clear;
      masters_rst_q <= state_q == Clear;
      if (starts) cycles_q <= 32'd1;
      else if (running) cycles_q <= cycles_q + 32'd1;
      if (starts) reason_q <= '0;
      unique case (state_q)
        Idle:
        if (running && !stopped_q && (cancel || (expired && !off_q && !starts && !beat))) begin
          state_q  <= Halt;
          owed_q   <= 1'b1;
          reason_q <= cancel ? 2'd2 : 2'd1;
          left_q   <= off_q ? 33'h10000 : {1'b0, limit};
        end
        Halt:
        if (drained) state_q <= Clear;
        else if (running && !stopped_q && !starts && expired) begin
          stopped_q   <= 1'b1;
          owed_q      <= 1'b0;
          undrained_q <= 1'b1;
          reason_q    <= reason_q == '0 ? 2'd1 : reason_q;
        end
        Clear:  state_q <= Leave;
        Leave: begin
          state_q     <= Idle;
          stopped_q   <= owed_q && running;
          owed_q      <= 1'b0;
          undrained_q <= 1'b0;
        end
        default: state_q <= Idle;
      endcase
    end
  end
endmodule
