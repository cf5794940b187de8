// SPDX-License-Identifier: Apache-2.0
// Every module of openhls/rtl in several sizes, side by side: what tests/rtl/*.cpp drives.
//
// Channels have payloads of 160 bits here, so that one C++ class drives all of them. Parameters
// are outputs, so that the C++ knows the sizes without a second list.

`define SOURCE(N, CH) \
  input logic [159:0] CH``_data[N], input logic CH``_vld[N], output logic CH``_rdy[N]
`define SINK(N, CH) \
  output logic [159:0] CH``_data[N], output logic CH``_vld[N], input logic CH``_rdy[N]

module openhls_bench #(
  localparam int Fifos    = 9,
  localparam int Credits  = 4,
  localparam int Rams     = 5,
  localparam int Banks    = 4,
  localparam int Masters  = 5,
  localparam int Controls = 2
) (
  input logic clk,
  input logic rst,

  output int fifo_width[Fifos],
  output int fifo_depth[Fifos],
  output int fifo_block[Fifos],
  `SOURCE(Fifos, fifo_in),
  `SINK(Fifos, fifo_out),

  output int   credit_depth[Credits],
  output logic credit_lost[Credits],
  `SINK(Credits, credit),
  `SINK(Credits, credit_out),

  output int ram_width[Rams],
  output int ram_depth[Rams],
  `SOURCE(Rams, ram_rd_req),
  `SINK(Rams, ram_rd_resp),
  `SOURCE(Rams, ram_wr_req),

  output int bank_width[Banks],
  output int bank_depth[Banks],
  `SINK(Banks, bank_w_acquire),
  `SOURCE(Banks, bank_wr_req),
  `SOURCE(Banks, bank_w_release),
  `SINK(Banks, bank_r_acquire),
  `SOURCE(Banks, bank_rd_req),
  `SINK(Banks, bank_rd_resp),
  `SOURCE(Banks, bank_r_release),

  output int axi_bits[Masters],
  output int axi_burst[Masters],
  output int axi_outstanding[Masters],
  output int axi_requests[Masters],

  input  logic [63:0] reader_base[Masters],
  input  logic        reader_clear[Masters],
  output logic        reader_error[Masters],
  output logic        reader_idle[Masters],
  input  logic        reader_halt[Masters],
  output logic        reader_drained[Masters],
  `SOURCE(Masters, reader_ar),
  `SINK(Masters, reader_r),
  `SINK(Masters, reader_m_ar),  // {prot, cache, burst, size, len, addr[63:0]}
  `SOURCE(Masters, reader_m_r),  // {last, resp, data[127:0]}

  input  logic [63:0] writer_base[Masters],
  input  logic        writer_clear[Masters],
  output logic        writer_error[Masters],
  output logic        writer_idle[Masters],
  input  logic        writer_halt[Masters],
  output logic        writer_drained[Masters],
  `SOURCE(Masters, writer_aw),
  `SOURCE(Masters, writer_w),
  `SINK(Masters, writer_b),
  `SINK(Masters, writer_m_aw),  // as reader_m_ar
  `SINK(Masters, writer_m_w),  // {last, strb[15:0], data[127:0]}
  `SOURCE(Masters, writer_m_b),

  output int          control_words[Controls],
  output int          control_writable[Controls],
  input  logic [31:0] control_readonly[Controls],  // all words that are not writable
  output logic [31:0] control_args[Controls][16],
  output logic [31:0] control_live[Controls][16],
  output logic        control_running[Controls],
  output logic        control_cancel[Controls],
  input  logic        control_hold[Controls],
  input  logic        control_stopped[Controls],
  output logic        control_interrupt[Controls],
  `SOURCE(Controls, control_aw),
  `SOURCE(Controls, control_w),  // {strb, data}
  `SINK(Controls, control_b),
  `SOURCE(Controls, control_ar),
  `SINK(Controls, control_r),  // {resp, data}
  `SINK(Controls, control_start),
  `SOURCE(Controls, control_done)
);
  localparam int FifoWidth[Fifos] = '{8, 1, 64, 33, 7, 16, 64, 160, 40};
  localparam int FifoDepth[Fifos] = '{1, 1, 2, 2, 3, 16, 37, 64, 103};

  for (genvar i = 0; i < Fifos; i++) begin : gen_fifo
    localparam int Width = FifoWidth[i];
    logic [Width-1:0] out_data;

    assign fifo_width[i]    = Width;
    assign fifo_depth[i]    = FifoDepth[i];
    assign fifo_block[i]    = int'(dut.BLOCK);
    assign fifo_out_data[i] = 160'(out_data);

    openhls_fifo #(
      .WIDTH(Width),
      .DEPTH(FifoDepth[i])
    ) dut (
      .clk,
      .rst,
      .in_data (fifo_in_data[i][Width-1:0]),
      .in_vld  (fifo_in_vld[i]),
      .in_rdy  (fifo_in_rdy[i]),
      .out_data,
      .out_vld (fifo_out_vld[i]),
      .out_rdy (fifo_out_rdy[i])
    );
  end

  localparam int CreditDepth[Credits] = '{1, 3, 7, 20};

  for (genvar i = 0; i < Credits; i++) begin : gen_credit
    logic        data, in_rdy, taken;
    logic [2:0]  delay_q;
    logic [63:0] word_q, out_data;

    assign credit_depth[i]    = CreditDepth[i];
    assign credit_data[i]     = 160'(data);
    assign credit_out_data[i] = 160'(out_data);
    assign credit_lost[i]     = delay_q[2] && !in_rdy;
    assign taken              = credit_vld[i] && credit_rdy[i];

    always_ff @(posedge clk) begin
      delay_q <= rst ? '0 : {delay_q[1:0], taken};
      word_q  <= rst ? '0 : word_q + 64'(delay_q[2]);
    end

    openhls_credit #(
      .CREDITS(CreditDepth[i])
    ) dut (
      .clk,
      .rst,
      .returned   (credit_out_vld[i] && credit_out_rdy[i]),
      .credit_data(data),
      .credit_vld (credit_vld[i]),
      .credit_rdy (credit_rdy[i])
    );

    openhls_fifo #(
      .WIDTH(64),
      .DEPTH(CreditDepth[i])
    ) fifo (
      .clk,
      .rst,
      .in_data (word_q),
      .in_vld  (delay_q[2]),
      .in_rdy,
      .out_data,
      .out_vld (credit_out_vld[i]),
      .out_rdy (credit_out_rdy[i])
    );
  end

  localparam int RamWidth[Rams] = '{8, 16, 33, 64, 1};
  localparam int RamDepth[Rams] = '{1, 2, 7, 64, 600};

  for (genvar i = 0; i < Rams; i++) begin : gen_ram
    localparam int Width = RamWidth[i];
    localparam int Addr = RamDepth[i] > 1 ? $clog2(RamDepth[i]) : 1;
    logic [Width-1:0] rd_resp_data;

    assign ram_width[i]        = Width;
    assign ram_depth[i]        = RamDepth[i];
    assign ram_rd_resp_data[i] = 160'(rd_resp_data);

    openhls_ram #(
      .WIDTH(Width),
      .DEPTH(RamDepth[i])
    ) dut (
      .clk,
      .rst,
      .rd_req_data(ram_rd_req_data[i][Addr-1:0]),
      .rd_req_vld (ram_rd_req_vld[i]),
      .rd_req_rdy (ram_rd_req_rdy[i]),
      .rd_resp_data,
      .rd_resp_vld(ram_rd_resp_vld[i]),
      .rd_resp_rdy(ram_rd_resp_rdy[i]),
      .wr_req_data(ram_wr_req_data[i][Width+Addr-1:0]),
      .wr_req_vld (ram_wr_req_vld[i]),
      .wr_req_rdy (ram_wr_req_rdy[i])
    );
  end

  localparam int BankWidth[Banks] = '{8, 32, 17, 64};
  localparam int BankDepth[Banks] = '{1, 5, 8, 40};

  for (genvar i = 0; i < Banks; i++) begin : gen_bank
    localparam int Width = BankWidth[i];
    localparam int Addr = BankDepth[i] > 1 ? $clog2(BankDepth[i]) : 1;
    logic [Width-1:0] rd_resp_data;
    logic w_acquire_data, r_acquire_data;

    assign bank_width[i]          = Width;
    assign bank_depth[i]          = BankDepth[i];
    assign bank_rd_resp_data[i]   = 160'(rd_resp_data);
    assign bank_w_acquire_data[i] = 160'(w_acquire_data);
    assign bank_r_acquire_data[i] = 160'(r_acquire_data);

    openhls_bank #(
      .WIDTH(Width),
      .DEPTH(BankDepth[i])
    ) dut (
      .clk,
      .rst,
      .w_acquire_data,
      .w_acquire_vld (bank_w_acquire_vld[i]),
      .w_acquire_rdy (bank_w_acquire_rdy[i]),
      .wr_req_data   (bank_wr_req_data[i][Width+Addr-1:0]),
      .wr_req_vld    (bank_wr_req_vld[i]),
      .wr_req_rdy    (bank_wr_req_rdy[i]),
      .w_release_data(bank_w_release_data[i][0]),
      .w_release_vld (bank_w_release_vld[i]),
      .w_release_rdy (bank_w_release_rdy[i]),
      .r_acquire_data,
      .r_acquire_vld (bank_r_acquire_vld[i]),
      .r_acquire_rdy (bank_r_acquire_rdy[i]),
      .rd_req_data   (bank_rd_req_data[i][Addr-1:0]),
      .rd_req_vld    (bank_rd_req_vld[i]),
      .rd_req_rdy    (bank_rd_req_rdy[i]),
      .rd_resp_data,
      .rd_resp_vld   (bank_rd_resp_vld[i]),
      .rd_resp_rdy   (bank_rd_resp_rdy[i]),
      .r_release_data(bank_r_release_data[i][0]),
      .r_release_vld (bank_r_release_vld[i]),
      .r_release_rdy (bank_r_release_rdy[i])
    );
  end

  localparam int AxiBits[Masters] = '{64, 64, 128, 32, 128};
  localparam int AxiBurst[Masters] = '{16, 256, 16, 1, 256};
  localparam int AxiOutstanding[Masters] = '{8, 3, 4, 1, 2};
  localparam int AxiDepth[Masters] = '{64, 300, 33, 5, 256};
  localparam int AxiRequests[Masters] = '{8, 2, 1, 3, 4};

  for (genvar i = 0; i < Masters; i++) begin : gen_master
    localparam int Bits = AxiBits[i];
    logic [Bits-1:0] r_data, wdata;
    logic b_data, wlast;
    logic [63:0] araddr, awaddr;
    logic [7:0] arlen, awlen;
    logic [2:0] arsize, awsize, arprot, awprot;
    logic [1:0] arburst, awburst;
    logic [3:0] arcache, awcache;
    logic [Bits/8-1:0] wstrb;

    assign axi_bits[i]         = Bits;
    assign axi_burst[i]        = AxiBurst[i] * Bits > 4096 * 8 ? 4096 * 8 / Bits : AxiBurst[i];
    assign axi_outstanding[i]  = AxiOutstanding[i];
    assign axi_requests[i]     = AxiRequests[i];
    assign reader_r_data[i]    = 160'(r_data);
    assign reader_m_ar_data[i] = 160'({arprot, arcache, arburst, arsize, arlen, araddr});
    assign writer_b_data[i]    = 160'(b_data);
    assign writer_m_aw_data[i] = 160'({awprot, awcache, awburst, awsize, awlen, awaddr});
    assign writer_m_w_data[i]  = 160'({wlast, 16'(wstrb), 128'(wdata)});

    openhls_axi_reader #(
      .DATA_BITS  (Bits),
      .MAX_BURST  (AxiBurst[i]),
      .OUTSTANDING(AxiOutstanding[i]),
      .FIFO_DEPTH (AxiDepth[i]),
      .REQUESTS   (AxiRequests[i])
    ) reader (
      .clk,
      .rst,
      .base         (reader_base[i]),
      .clear        (reader_clear[i]),
      .error        (reader_error[i]),
      .idle         (reader_idle[i]),
      .halt         (reader_halt[i]),
      .drained      (reader_drained[i]),
      .ar_data      (reader_ar_data[i][63:0]),
      .ar_vld       (reader_ar_vld[i]),
      .ar_rdy       (reader_ar_rdy[i]),
      .r_data,
      .r_vld        (reader_r_vld[i]),
      .r_rdy        (reader_r_rdy[i]),
      .m_axi_araddr (araddr),
      .m_axi_arlen  (arlen),
      .m_axi_arsize (arsize),
      .m_axi_arburst(arburst),
      .m_axi_arcache(arcache),
      .m_axi_arprot (arprot),
      .m_axi_arvalid(reader_m_ar_vld[i]),
      .m_axi_arready(reader_m_ar_rdy[i]),
      .m_axi_rdata  (reader_m_r_data[i][Bits-1:0]),
      .m_axi_rresp  (reader_m_r_data[i][129:128]),
      .m_axi_rlast  (reader_m_r_data[i][130]),
      .m_axi_rvalid (reader_m_r_vld[i]),
      .m_axi_rready (reader_m_r_rdy[i])
    );

    openhls_axi_writer #(
      .DATA_BITS  (Bits),
      .MAX_BURST  (AxiBurst[i]),
      .OUTSTANDING(AxiOutstanding[i]),
      .FIFO_DEPTH (AxiDepth[i]),
      .REQUESTS   (AxiRequests[i])
    ) writer (
      .clk,
      .rst,
      .base         (writer_base[i]),
      .clear        (writer_clear[i]),
      .error        (writer_error[i]),
      .idle         (writer_idle[i]),
      .halt         (writer_halt[i]),
      .drained      (writer_drained[i]),
      .aw_data      (writer_aw_data[i][63:0]),
      .aw_vld       (writer_aw_vld[i]),
      .aw_rdy       (writer_aw_rdy[i]),
      .w_data       (writer_w_data[i][Bits-1:0]),
      .w_vld        (writer_w_vld[i]),
      .w_rdy        (writer_w_rdy[i]),
      .b_data,
      .b_vld        (writer_b_vld[i]),
      .b_rdy        (writer_b_rdy[i]),
      .m_axi_awaddr (awaddr),
      .m_axi_awlen  (awlen),
      .m_axi_awsize (awsize),
      .m_axi_awburst(awburst),
      .m_axi_awcache(awcache),
      .m_axi_awprot (awprot),
      .m_axi_awvalid(writer_m_aw_vld[i]),
      .m_axi_awready(writer_m_aw_rdy[i]),
      .m_axi_wdata  (wdata),
      .m_axi_wstrb  (wstrb),
      .m_axi_wlast  (wlast),
      .m_axi_wvalid (writer_m_w_vld[i]),
      .m_axi_wready (writer_m_w_rdy[i]),
      .m_axi_bresp  (writer_m_b_data[i][1:0]),
      .m_axi_bvalid (writer_m_b_vld[i]),
      .m_axi_bready (writer_m_b_rdy[i])
    );
  end

  localparam int ControlBits[Controls] = '{7, 5};
  localparam int ControlWords[Controls] = '{13, 2};
  localparam int ControlWritable[Controls] = '{'b0_011_011_011_011, 'b11};

  for (genvar i = 0; i < Controls; i++) begin : gen_control
    localparam int Bits = ControlBits[i];
    localparam int Words = ControlWords[i];
    logic [Words*32-1:0] args, live;
    logic start_data;
    logic [1:0] bresp, rresp;
    logic [31:0] rdata;

    assign control_words[i]      = Words;
    assign control_writable[i]   = ControlWritable[i];
    assign control_b_data[i]     = 160'(bresp);
    assign control_r_data[i]     = 160'({rresp, rdata});
    assign control_start_data[i] = 160'(start_data);
    for (genvar w = 0; w < 16; w++) begin : gen_arg
      assign control_args[i][w] = w < Words ? args[32*(w%Words)+:32] : '0;
      assign control_live[i][w] = w < Words ? live[32*(w%Words)+:32] : '0;
    end

    openhls_control #(
      .ADDR_BITS(Bits),
      .WORDS    (Words),
      .WRITABLE (Words'(ControlWritable[i]))
    ) dut (
      .clk,
      .rst,
      .interrupt    (control_interrupt[i]),
      .s_axi_awaddr (control_aw_data[i][Bits-1:0]),
      .s_axi_awvalid(control_aw_vld[i]),
      .s_axi_awready(control_aw_rdy[i]),
      .s_axi_wdata  (control_w_data[i][31:0]),
      .s_axi_wstrb  (control_w_data[i][35:32]),
      .s_axi_wvalid (control_w_vld[i]),
      .s_axi_wready (control_w_rdy[i]),
      .s_axi_bresp  (bresp),
      .s_axi_bvalid (control_b_vld[i]),
      .s_axi_bready (control_b_rdy[i]),
      .s_axi_araddr (control_ar_data[i][Bits-1:0]),
      .s_axi_arvalid(control_ar_vld[i]),
      .s_axi_arready(control_ar_rdy[i]),
      .s_axi_rdata  (rdata),
      .s_axi_rresp  (rresp),
      .s_axi_rvalid (control_r_vld[i]),
      .s_axi_rready (control_r_rdy[i]),
      .args,
      .live,
      .running      (control_running[i]),
      .cancel        (control_cancel[i]),
      .hold         (control_hold[i]),
      .stopped      (control_stopped[i]),
      .readonly     ({Words{control_readonly[i]}}),
      .start_data,
      .start_vld    (control_start_vld[i]),
      .start_rdy    (control_start_rdy[i]),
      .done_data    (control_done_data[i][0]),
      .done_vld     (control_done_vld[i]),
      .done_rdy     (control_done_rdy[i])
    );
  end
endmodule
