// SPDX-License-Identifier: Apache-2.0
// A master on the AXI4-Lite slave `s_axi_control` of a Verilated design. `Bench` has the model
// `top` and tick(), which gives it a clock cycle.
#pragma once

#include <cstdint>

#include "axi_memory.hpp"

namespace sim {

constexpr int kLiteTimeout = 1000;  // cycles

template <class Bench>
void write_register(Bench& bench, unsigned offset, std::uint32_t value) {
  auto& top = bench.top;
  top.s_axi_control_AWADDR = offset;
  top.s_axi_control_WDATA = value;
  top.s_axi_control_WSTRB = 0xF;
  top.s_axi_control_AWVALID = top.s_axi_control_WVALID = 1;
  top.s_axi_control_BREADY = 1;
  bool address_done = false, data_done = false, responded = false;
  for (int i = 0; i < kLiteTimeout && !responded; i++) {
    top.ap_clk = 0;
    top.eval();
    bool address_now = top.s_axi_control_AWVALID && top.s_axi_control_AWREADY;
    bool data_now = top.s_axi_control_WVALID && top.s_axi_control_WREADY;
    responded = top.s_axi_control_BVALID;
    bench.tick();
    address_done |= address_now;
    data_done |= data_now;
    top.s_axi_control_AWVALID = !address_done;
    top.s_axi_control_WVALID = !data_done;
  }
  top.s_axi_control_BREADY = 0;
  if (!responded) violation("s_axi_control", "a register write was never answered");
}

template <class Bench>
std::uint32_t read_register(Bench& bench, unsigned offset) {
  auto& top = bench.top;
  top.s_axi_control_ARADDR = offset;
  top.s_axi_control_ARVALID = 1;
  top.s_axi_control_RREADY = 1;
  for (int i = 0; i < kLiteTimeout; i++) {
    top.ap_clk = 0;
    top.eval();
    bool address_now = top.s_axi_control_ARVALID && top.s_axi_control_ARREADY;
    bool data_now = top.s_axi_control_RVALID;
    std::uint32_t value = top.s_axi_control_RDATA;
    bench.tick();
    if (address_now) top.s_axi_control_ARVALID = 0;
    if (data_now) {
      top.s_axi_control_RREADY = 0;
      return value;
    }
  }
  violation("s_axi_control", "a register read was never answered");
}

}  // namespace sim
