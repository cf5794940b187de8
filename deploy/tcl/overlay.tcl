# SPDX-License-Identifier: Apache-2.0
# Builds the overlay of a board around the packaged engine:  vivado -mode batch -source overlay.tcl
# Reads settings.tcl beside it; writes winnow.bit, winnow.hwh, winnow.xsa and reports into the folder
# out. Never run in Vivado by us: tests/tcl/standin.tcl checks cells, pins, nets and addresses.
set here [file dirname [file normalize [info script]]]
source $here/settings.tcl

# The newest version of a block in Vivado's catalogue.
proc newest {pattern} {
  set found [lsort -dictionary [get_property VLNV [get_ipdefs -all $pattern]]]
  if {![llength $found]} { error "no block $pattern in the catalogue" }
  return [lindex $found end]
}
proc cell {name pattern} { create_bd_cell -type ip -vlnv [newest $pattern] $name }
proc wire {from args} {
  foreach pin $args { connect_bd_net [get_bd_pins $from] [get_bd_pins $pin] }
}
proc bus {from to} { connect_bd_intf_net [get_bd_intf_pins $from] [get_bd_intf_pins $to] }

proc open_design {} {
  global here part board board_part top
  create_project -force winnow $here/project -part $part
  if {$board_part eq ""} {
    # Boards whose file has a version that must be asked for.
    set board_part [lindex [get_board_parts -quiet "*:[string tolower $board]*:*"] 0]
  } else {
    set board_part [lindex [get_board_parts -quiet $board_part] 0]
  }
  if {$board_part eq ""} { error "Vivado has no board files of $board: install them first" }
  set_property board_part $board_part [current_project]
  set_property ip_repo_paths $here/ip [current_project]
  update_ip_catalog -rebuild
  create_bd_design bd
}

# The processor, with a clock, an interrupt, a control port and the memory ports that are used.
# A port of a Zynq-7000 must stay 64 bits wide: pynq cannot set another width.
proc add_zynq7 {} {
  global mhz ports
  set ps [cell ps xilinx.com:ip:processing_system7:*]
  apply_bd_automation -rule xilinx.com:bd_rule:processing_system7 -config {
    make_external "FIXED_IO, DDR" apply_board_preset "1" Master "Disable" Slave "Disable"
  } $ps
  set values [list CONFIG.PCW_USE_M_AXI_GP0 1 CONFIG.PCW_FPGA0_PERIPHERAL_FREQMHZ $mhz \
      CONFIG.PCW_USE_FABRIC_INTERRUPT 1 CONFIG.PCW_IRQ_F2P_INTR 1]
  for {set i 0} {$i < [llength $ports]} {incr i} {
    lappend values CONFIG.PCW_USE_S_AXI_HP$i 1 CONFIG.PCW_S_AXI_HP${i}_DATA_WIDTH 64
  }
  set_property -dict $values $ps
}
# Presets of boards differ, so every port is set, on or off.
proc add_mpsoc {} {
  global mhz ports
  set ps [cell ps xilinx.com:ip:zynq_ultra_ps_e:*]
  apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e -config {apply_board_preset "1"} $ps
  set values [list CONFIG.PSU__USE__M_AXI_GP0 1 CONFIG.PSU__USE__M_AXI_GP1 0 \
      CONFIG.PSU__USE__M_AXI_GP2 0 CONFIG.PSU__FPGA_PL0_ENABLE 1 CONFIG.PSU__USE__IRQ0 1 \
      CONFIG.PSU__CRL_APB__PL0_REF_CTRL__SRCSEL IOPLL \
      CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ $mhz]
  for {set i 0} {$i < [llength $ports]} {incr i} {
    set port [expr {$i + 2}]
    lappend values CONFIG.PSU__USE__S_AXI_GP$port 1 CONFIG.PSU__SAXIGP${port}__DATA_WIDTH 64
  }
  set_property -dict $values $ps
}

# `interrupt` goes through an axi_intc, on edges: on levels, pynq's wait returns at once.
proc add_control {} {
  global control
  cell control xilinx.com:ip:smartconnect:*
  set_property -dict {CONFIG.NUM_SI 1 CONFIG.NUM_MI 2} [get_bd_cells control]
  cell intc xilinx.com:ip:axi_intc:*
  set_property -dict {CONFIG.C_IRQ_CONNECTION 1 CONFIG.C_KIND_OF_INTR.VALUE_SRC USER \
      CONFIG.C_KIND_OF_INTR 0xFFFFFFFF} [get_bd_cells intc]
  bus ps/$control control/S00_AXI
  bus control/M00_AXI engine/s_axi_control
  bus control/M01_AXI intc/s_axi
  wire engine/interrupt intc/intr
}

# One port of the processor per master, as the cycle model has it; those beyond the ports share.
proc add_memory {} {
  global ports port_of masters
  foreach port $ports {
    set sharing {}
    foreach master $masters {
      if {[dict get $port_of $master] eq $port} { lappend sharing $master }
    }
    set name memory_[string tolower $port]
    cell $name xilinx.com:ip:smartconnect:*
    set_property -dict [list CONFIG.NUM_SI [llength $sharing] CONFIG.NUM_MI 1] [get_bd_cells $name]
    set number 0
    foreach master $sharing {
      bus engine/$master $name/[format S%02d_AXI $number]
      incr number
    }
    bus $name/M00_AXI ps/$port
    wire $::clock $name/aclk
    wire reset/peripheral_aresetn $name/aresetn
  }
}

open_design
if {$family eq "processing_system7"} {
  add_zynq7
  set clock ps/FCLK_CLK0
  set reset ps/FCLK_RESET0_N
  set interrupt ps/IRQ_F2P
} else {
  add_mpsoc
  set clock ps/pl_clk0
  set reset ps/pl_resetn0
  set interrupt ps/pl_ps_irq0
}
cell engine $vendor:$library:$top:$version
set found [lsort [get_bd_intf_pins -of [get_bd_cells engine] -filter {MODE == Master}]]
set wanted [lsort [lmap master $masters { string cat engine/ $master }]]
if {[lmap pin $found { string trimleft $pin / }] ne $wanted} {
  error "the packaged engine has the masters $found, must be $wanted: package it again"
}
cell reset xilinx.com:ip:proc_sys_reset:*
wire $reset reset/ext_reset_in
add_control
add_memory
wire $clock reset/slowest_sync_clk control/aclk intc/s_axi_aclk engine/ap_clk
foreach pin $port_clocks { wire $clock ps/$pin }
wire reset/peripheral_aresetn control/aresetn intc/s_axi_aresetn engine/ap_rst_n
wire intc/irq $interrupt

assign_bd_address -offset $base -range $range [get_bd_addr_segs engine/s_axi_control/Reg]
assign_bd_address -offset [expr {$base + $range}] -range $range [get_bd_addr_segs intc/S_AXI/Reg]
assign_bd_address
validate_bd_design
save_bd_design
make_wrapper -files [get_files bd.bd] -top -import
set_property top bd_wrapper [current_fileset]
generate_target all [get_files bd.bd]

launch_runs impl_1 -to_step write_bitstream -jobs 4
wait_on_run impl_1
if {[get_property PROGRESS [get_runs impl_1]] ne "100%"} { error "the implementation failed" }
open_run impl_1
set slack [get_property SLACK [get_timing_paths -delay_type max]]
set held [get_property SLACK [get_timing_paths -delay_type min]]
file mkdir $here/out
report_utilization -hierarchical -file $here/out/utilization.rpt
report_timing_summary -file $here/out/timing.rpt
if {$slack < 0 || $held < 0} {
  error "timing is not met at $mhz MHz: slack $slack ns, hold $held ns; lower target.clock_mhz"
}
file copy -force $here/project/winnow.runs/impl_1/bd_wrapper.bit $here/out/winnow.bit
file copy -force [glob $here/project/winnow.gen/sources_1/bd/bd/hw_handoff/bd.hwh] \
    $here/out/winnow.hwh
write_hw_platform -fixed -include_bit -force $here/out/winnow.xsa
puts "overlay: $here/out/winnow.bit, timing met at $mhz MHz"
puts "next: make overlay BIT=$here/out/winnow.bit CLOCK=$mhz"
