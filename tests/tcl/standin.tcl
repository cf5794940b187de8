# SPDX-License-Identifier: Apache-2.0
# Stand-ins for the Vivado commands that deploy/tcl calls: a small model of a block design and of a
# packaged block. A pin that does not exist, one driven twice or not at all, an unknown command, an
# overlap of registers or of addresses is an error. It cannot tell whether Vivado has a property.
#
#   tclsh standin.tcl SCRIPT LOG     LOG gets a line per call; exit code 1 and a line on an error
set script [lindex $argv 0]
set log [open [lindex $argv 1] w]
set cells [dict create]      ;# cell -> kind of block
set pins [dict create]       ;# cell/pin -> {kind direction}
set nets [dict create]       ;# sink -> source
set addresses [dict create]  ;# segment -> {offset range}
set assigned 0
set packaged [dict create]   ;# register of the packaged block -> its properties
set configured [dict create]

proc record {args} { puts $::log $args }
proc add_pins {cell kind direction names} {
  foreach name $names { dict set ::pins $cell/$name [list $kind $direction] }
}

# --- block designs --------------------------------------------------------------------------------
proc pins_of {cell kind} {
  switch $kind {
    processing_system7 {
      add_pins $cell intf Master M_AXI_GP0
      add_pins $cell pin out {FCLK_CLK0 FCLK_RESET0_N}
      add_pins $cell pin in {M_AXI_GP0_ACLK IRQ_F2P}
    }
    zynq_ultra_ps_e {
      add_pins $cell intf Master M_AXI_HPM0_FPD
      add_pins $cell pin out {pl_clk0 pl_resetn0}
      add_pins $cell pin in {maxihpm0_fpd_aclk pl_ps_irq0}
    }
    winnow_engine {
      add_pins $cell intf Slave s_axi_control
      add_pins $cell intf Master $::engine_masters
      add_pins $cell pin in {ap_clk ap_rst_n}
      add_pins $cell pin out interrupt
    }
    proc_sys_reset {
      add_pins $cell pin in {slowest_sync_clk ext_reset_in}
      add_pins $cell pin out peripheral_aresetn
    }
    axi_intc {
      add_pins $cell intf Slave s_axi
      add_pins $cell pin in {s_axi_aclk s_axi_aresetn intr}
      add_pins $cell pin out irq
    }
    smartconnect { add_pins $cell pin in {aclk aresetn} }
    default { error "no block '$kind' in the catalogue" }
  }
}
proc configure {cell name value} {
  dict set ::configured $cell.$name $value
  if {![string is true $value] && ![string match CONFIG.NUM_* $name]} { return }
  switch -regexp -matchvar found $name {
    {^CONFIG.NUM_(S|M)I$} {
      set side [lindex $found 1]
      set mode [expr {$side eq "S" ? "Slave" : "Master"}]
      for {set i 0} {$i < $value} {incr i} {
        add_pins $cell intf $mode [format %s%02d_AXI $side $i]
      }
    }
    {^CONFIG.PCW_USE_S_AXI_HP([0-3])$} {
      add_pins $cell intf Slave S_AXI_HP[lindex $found 1]
      add_pins $cell pin in S_AXI_HP[lindex $found 1]_ACLK
    }
    {^CONFIG.PSU__USE__S_AXI_GP([2-5])$} {
      set port [expr {[lindex $found 1] - 2}]
      add_pins $cell intf Slave S_AXI_HP${port}_FPD
      add_pins $cell pin in saxihp${port}_fpd_aclk
    }
  }
}
proc create_bd_cell {args} {
  record create_bd_cell {*}$args
  set vlnv [split [lindex $args [expr {[lsearch $args -vlnv] + 1}]] :]
  if {[llength $vlnv] != 4} { error "'$vlnv' must have four parts" }
  set cell [lindex $args end]
  if {[dict exists $::cells $cell]} { error "there is a cell '$cell' already" }
  dict set ::cells $cell [lindex $vlnv 2]
  pins_of $cell [lindex $vlnv 2]
  return $cell
}
proc get_bd_cells {name} {
  if {![dict exists $::cells $name]} { error "no cell '$name' in the block design" }
  return $name
}
proc get_ipdefs {args} {
  set pattern [lindex $args end]
  set ours {winnow:hls:winnow_engine:0.1}
  if {[string match winnow* $pattern] && $pattern ne $ours} { return {} }
  return [string map {* 1.0} $pattern]
}
proc get_board_parts {args} { return [string map {* 1.0} [lindex $args end]] }
proc find {kind arguments} {
  set name [lindex $arguments end]
  if {[lindex $arguments 0] eq "-of"} {
    set found {}
    dict for {pin what} $::pins {
      if {[string match [lindex $arguments 1]/* $pin] && $what eq {intf Master}} {
        lappend found /$pin
      }
    }
    return $found
  }
  if {![dict exists $::pins $name]} { error "no $kind '$name' in the block design" }
  if {[lindex [dict get $::pins $name] 0] ne $kind} { error "'$name' is no $kind" }
  return $name
}
proc get_bd_intf_pins {args} { find intf $args }
proc get_bd_pins {args} { find pin $args }
proc connect {from to} {
  if {[lindex [dict get $::pins $from] 1] ni {out Master}} { error "'$from' drives nothing" }
  if {[lindex [dict get $::pins $to] 1] ni {in Slave}} { error "'$to' cannot be driven" }
  if {[dict exists $::nets $to]} { error "'$to' is driven by '[dict get $::nets $to]' and '$from'" }
  dict set ::nets $to $from
}
proc connect_bd_intf_net {from to} {
  record connect_bd_intf_net $from $to
  if {[lindex [dict get $::pins $from] 1] eq "Master" && $from in [dict values $::nets]} {
    error "'$from' drives two ports"
  }
  connect $from $to
}
proc connect_bd_net {from to} { record connect_bd_net $from $to; connect $from $to }
proc get_bd_addr_segs {name} { return $name }
proc assign_bd_address {args} {
  record assign_bd_address {*}$args
  if {![llength $args]} { set ::assigned 1; return }
  set offset [expr {[dict get [lrange $args 0 3] -offset]}]
  set range [dict get [lrange $args 0 3] -range]
  dict for {other place} $::addresses {
    lassign $place start length
    if {$offset < $start + $length && $start < $offset + $range} {
      error "addresses of '[lindex $args end]' and '$other' overlap"
    }
  }
  dict set ::addresses [lindex $args end] [list $offset $range]
}
proc validate_bd_design {} {
  record validate_bd_design
  dict for {pin what} $::pins {
    set is_sink [expr {[lindex $what 1] in {in Slave}}]
    if {$is_sink && ![dict exists $::nets $pin]} { error "'$pin' is not connected" }
    if {$what eq {intf Master} && $pin ni [dict values $::nets]} { error "'$pin' is not connected" }
  }
  if {!$::assigned} { error "the masters have no addresses" }
  if {[dict size $::addresses] != 2} { error "a slave has no address" }
  dict for {name value} $::configured {
    if {[string match *CONFIG.PCW_S_AXI_HP*_DATA_WIDTH $name] && $value != 64} {
      error "'$name' must be 64: pynq cannot set another width"
    }
  }
}

# --- packaged blocks ------------------------------------------------------------------------------
namespace eval ipx {}
proc ipx::package_project {args} { record ipx::package_project {*}$args }
proc ipx::current_core {} { return core }
proc ipx::get_bus_interfaces {name args} { return $name }
proc ipx::add_memory_map {name core} { return map }
proc ipx::add_address_block {name map} { return block }
proc ipx::add_register {name block} {
  if {[dict exists $::packaged $name]} { error "there is a register '$name' already" }
  dict set ::packaged $name [dict create]
  return $name
}
proc ipx::add_field {name register} { return [list field $register $name] }
proc ipx::check_integrity {core} {
  set taken {}
  dict for {register values} $::packaged {
    if {![dict exists $values address_offset]} { error "register '$register' has no offset" }
    set offset [expr {[dict get $values address_offset]}]
    if {$offset in $taken} { error "two registers are at $offset" }
    lappend taken $offset
  }
  if {![llength $taken]} { error "the block has no registers" }
  record registers [llength $taken]
}
foreach name {infer_bus_interface associate_bus_interfaces create_xgui_files update_checksums
    save_core} {
  proc ipx::$name {args} "record ipx::$name {*}\$args"
}

# --- both -----------------------------------------------------------------------------------------
proc set_property {args} {
  record set_property {*}$args
  set object [lindex $args end]
  set values [expr {[lindex $args 0] eq "-dict" ? [lindex $args 1] : [lrange $args 0 1]}]
  if {[dict exists $::packaged $object]} {
    foreach {name value} $values { dict set ::packaged $object $name $value }
  }
  if {[dict exists $::cells $object]} {
    foreach {name value} $values { configure $object $name $value }
  }
}
proc get_property {name object} {
  if {$name eq "SLACK"} { return $::slack }
  if {$name eq "PROGRESS"} { return 100% }
  return $object
}
foreach name {create_project close_project add_files update_compile_order update_ip_catalog
    create_bd_design apply_bd_automation save_bd_design make_wrapper generate_target launch_runs
    wait_on_run open_run report_utilization report_timing_summary write_hw_platform} {
  proc $name {args} "record $name {*}\$args"
}
foreach name {current_project current_fileset get_files get_runs get_timing_paths} {
  proc $name {args} { return [lindex $args end] }
}
rename file real_file
proc file {action args} {
  if {$action in {copy mkdir}} { record file $action {*}$args; return }
  uplevel 1 [list real_file $action {*}$args]
}
rename glob real_glob
proc glob {args} { return [lindex $args end] }

source [file join [file dirname $script] settings.tcl]
set engine_masters $masters
set slack [expr {[info exists ::env(STANDIN_SLACK)] ? $::env(STANDIN_SLACK) : 0.1}]
if {[catch { source $script } message]} {
  puts stderr "error: $message"
  close $log
  exit 1
}
close $log
