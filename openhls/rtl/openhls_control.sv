// SPDX-License-Identifier: Apache-2.0
// The AXI4-Lite registers of a kernel, in the layout of Vitis HLS (s_axi_control, ap_ctrl_hs).
//
//   0x00 CTRL  bit 0 ap_start: written 1, cleared when the kernel takes its start token, unless
//                    auto_restart; bit 1 ap_done: a run ended, cleared by reading CTRL;
//              bit 2 ap_idle: no run and none to come; bit 3 ap_ready: the start token was taken
//                    (not set under auto_restart), cleared by reading CTRL; bit 7 auto_restart;
//              bit 16 (not of Vitis): writing 1 gives a pulse of `cancel` and forgets a start to come
//   0x04 GIE   bit 0 enables `interrupt`
//   0x08 IER   bit 0 ap_done and bit 1 ap_ready reach ISR
//   0x0C ISR   bit 0 ap_done, bit 1 ap_ready; writing 1 toggles a bit (an event wins)
//   0x10 + 4*i word i of the arguments: read/write if WRITABLE[i], else it reads readonly[i]
//
// As in Vitis: WSTRB is honoured, other addresses and those not a multiple of 4 read 0 and ignore
// writes, every response is OKAY. The reserved word after an argument is one that is neither
// writable nor driven (tie its `readonly` to 0).
//
// A run: with ap_start set and no run going on, `args` takes the argument words and start_vld
// rises one cycle later; `args` keeps them until the next run, whatever is written meanwhile. The
// run ends with a token on `done`. Setting ap_start during a run is remembered: one more run
// follows, with the arguments as they are when it begins; setting it again before that changes
// nothing. (In Vitis that is how a dataflow kernel behaves.)
//
// `stopped` ends a run in place of the token; while `hold` is high, the start token waits and tokens on
// `done` mean nothing. `live` has the words as written, for what must act during a run.
//
// Latency: a write is answered two cycles after its address, a read after one; a run ends a cycle
// after its token.
// Paths: none from an input to an output.
// Resources (13 words, 8 of them writable): 400 LUTs, 570 registers.
module openhls_control #(
  parameter int               ADDR_BITS = 7,
  parameter int               WORDS     = 13,
  parameter logic [WORDS-1:0] WRITABLE  = '1
) (
  input  logic                 clk,
  input  logic                 rst,
  // Vitis' name for the pin; Verilator calls it a C++ word.
  /* verilator lint_off SYMRSVDWORD */
  output logic                 interrupt,
  /* verilator lint_on SYMRSVDWORD */

  input  logic [ADDR_BITS-1:0] s_axi_awaddr,
  input  logic                 s_axi_awvalid,
  output logic                 s_axi_awready,
  // Without a writable word most of these have no use.
  /* verilator lint_off UNUSEDSIGNAL */
  input  logic [31:0]          s_axi_wdata,
  input  logic [3:0]           s_axi_wstrb,
  /* verilator lint_on UNUSEDSIGNAL */
  input  logic                 s_axi_wvalid,
  output logic                 s_axi_wready,
  output logic [1:0]           s_axi_bresp,
  output logic                 s_axi_bvalid,
  input  logic                 s_axi_bready,
  input  logic [ADDR_BITS-1:0] s_axi_araddr,
  input  logic                 s_axi_arvalid,
  output logic                 s_axi_arready,
  output logic [31:0]          s_axi_rdata,
  output logic [1:0]           s_axi_rresp,
  output logic                 s_axi_rvalid,
  input  logic                 s_axi_rready,

  output logic [WORDS*32-1:0]  args,
  output logic [WORDS*32-1:0]  live,
  input  logic [WORDS*32-1:0]  readonly,

  output logic                 running,
  output logic                 cancel,
  input  logic                 hold,
  input  logic                 stopped,

  output logic                 start_data,
  output logic                 start_vld,
  input  logic                 start_rdy,
  input  logic                 done_data,
  input  logic                 done_vld,
  output logic                 done_rdy
);
  localparam logic [ADDR_BITS-1:0] Ctrl = ADDR_BITS'('h00);
  localparam logic [ADDR_BITS-1:0] Gie = ADDR_BITS'('h04);
  localparam logic [ADDR_BITS-1:0] Ier = ADDR_BITS'('h08);
  localparam logic [ADDR_BITS-1:0] Isr = ADDR_BITS'('h0c);
  localparam int FirstArg = 'h10;

  if (FirstArg + 4 * WORDS > 2 ** ADDR_BITS) begin : gen_illegal
`ifdef __ICARUS__  // has no elaboration tasks
    initial
`endif
    $error("openhls_control: ADDR_BITS cannot address WORDS words");
  end

  // Write channel: address, then data, then response.
  logic                 aw_held_q, b_vld_q, write;
  logic [ADDR_BITS-1:0] aw_addr_q;

  assign s_axi_awready = !aw_held_q && !b_vld_q;
  assign s_axi_wready  = aw_held_q;
  assign s_axi_bresp   = 2'b00;
  assign s_axi_bvalid  = b_vld_q;
  assign write         = s_axi_wvalid && s_axi_wready;

  always_ff @(posedge clk) begin
    if (s_axi_awready) aw_addr_q <= s_axi_awaddr;
    if (rst) begin
      aw_held_q <= 1'b0;
      b_vld_q   <= 1'b0;
    end else begin
      if (s_axi_awready) aw_held_q <= s_axi_awvalid;
      else if (write) aw_held_q <= 1'b0;
      if (write) b_vld_q <= 1'b1;
      else if (s_axi_bready) b_vld_q <= 1'b0;
    end
  end

  // Runs.
  logic start_q, done_q, ready_q, restart_q;  // bits of CTRL
  logic running_q, start_vld_q, waits_q, cancel_q;
  logic done_token_q;  // a register of its own: it comes late out of the kernel
  logic gie_q, interrupt_q;
  logic [1:0] ier_q, isr_q, event_bits, toggle;
  logic launch, taken, ended, read, read_ctrl, write_ctrl, write_cancel;

  assign start_data = 1'b1;
  assign start_vld  = start_vld_q;
  assign done_rdy   = 1'b1;
  assign interrupt  = interrupt_q;
  assign running    = running_q;
  assign cancel      = cancel_q;

  assign launch     = start_q && !running_q;
  assign taken      = start_vld_q && start_rdy;
  assign ended      = done_token_q || stopped;
  assign write_ctrl = write && s_axi_wstrb[0] && aw_addr_q == Ctrl;
  assign read_ctrl  = read && s_axi_araddr == Ctrl;
  assign write_cancel = write && s_axi_wstrb[2] && s_axi_wdata[16] && aw_addr_q == Ctrl;
  assign event_bits = ier_q & {taken, ended};
  assign toggle     = write && s_axi_wstrb[0] && aw_addr_q == Isr ? s_axi_wdata[1:0] : 2'b00;

  always_ff @(posedge clk) begin
    if (rst) begin
      start_q     <= 1'b0;
      done_q      <= 1'b0;
      ready_q     <= 1'b0;
      restart_q   <= 1'b0;
      done_token_q <= 1'b0;
      running_q   <= 1'b0;
      start_vld_q <= 1'b0;
      waits_q     <= 1'b0;
      cancel_q     <= 1'b0;
      gie_q       <= 1'b0;
      ier_q       <= '0;
      isr_q       <= '0;
      interrupt_q <= 1'b0;
    end else begin
      if (write_ctrl && s_axi_wdata[0]) start_q <= 1'b1;
      else if (write_cancel) start_q <= 1'b0;
      else if (taken || (stopped && (waits_q || start_vld_q))) start_q <= restart_q;
      cancel_q <= write_cancel;
      done_token_q <= done_vld && done_data && !hold && !stopped;
      if (write_ctrl) restart_q <= s_axi_wdata[7];
      done_q  <= ended || (done_q && !read_ctrl);
      ready_q <= (taken && !restart_q) || (ready_q && !read_ctrl);
      if (launch) running_q <= 1'b1;
      else if (ended) running_q <= 1'b0;
      waits_q <= (launch || waits_q) && hold && !stopped;
      if (launch || waits_q) start_vld_q <= !hold && !stopped;
      else if (taken || stopped) start_vld_q <= 1'b0;
      if (write && s_axi_wstrb[0] && aw_addr_q == Gie) gie_q <= s_axi_wdata[0];
      if (write && s_axi_wstrb[0] && aw_addr_q == Ier) ier_q <= s_axi_wdata[1:0];
      isr_q       <= event_bits | (isr_q ^ toggle);
      interrupt_q <= gie_q && isr_q != '0;
    end
  end

  // Arguments: as written, and as the run sees them.
  logic [WORDS*32-1:0] written;

  assign live = written;

  for (genvar i = 0; i < WORDS; i++) begin : gen_word
    if (WRITABLE[i]) begin : gen_writable
      logic [31:0] written_q, run_q;
      logic        hit;

      assign hit               = write && aw_addr_q == ADDR_BITS'(FirstArg + 4 * i);
      assign written[32*i+:32] = written_q;
      assign args[32*i+:32]    = run_q;

      always_ff @(posedge clk) begin
        if (rst) written_q <= '0;
        else if (hit) begin
          for (int b = 0; b < 4; b++) begin
            if (s_axi_wstrb[b]) written_q[8*b+:8] <= s_axi_wdata[8*b+:8];
          end
        end
        if (launch) run_q <= written_q;
      end
    end else begin : gen_readonly
      assign written[32*i+:32] = '0;
      assign args[32*i+:32]    = '0;
    end
  end

  // Read channel.
  logic        r_vld_q;
  logic [31:0] r_data_q, r_data;

  assign s_axi_arready = !r_vld_q;
  assign s_axi_rdata   = r_data_q;
  assign s_axi_rresp   = 2'b00;
  assign s_axi_rvalid  = r_vld_q;
  assign read          = s_axi_arvalid && s_axi_arready;

  always_comb begin
    r_data = '0;
    if (s_axi_araddr == Ctrl) begin
      r_data[3:0] = {ready_q, !running_q && !start_q, done_q, start_q};
      r_data[7]   = restart_q;
    end
    if (s_axi_araddr == Gie) r_data[0] = gie_q;
    if (s_axi_araddr == Ier) r_data[1:0] = ier_q;
    if (s_axi_araddr == Isr) r_data[1:0] = isr_q;
    for (int i = 0; i < WORDS; i++) begin
      if (s_axi_araddr == ADDR_BITS'(FirstArg + 4 * i)) begin
        r_data = WRITABLE[i] ? written[32*i+:32] : readonly[32*i+:32];
      end
    end
  end

  always_ff @(posedge clk) begin
    if (s_axi_arready) r_data_q <= r_data;
    if (rst) r_vld_q <= 1'b0;
    else if (s_axi_arready) r_vld_q <= s_axi_arvalid;
    else if (s_axi_rready) r_vld_q <= 1'b0;
  end
endmodule
