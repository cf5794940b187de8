# SPDX-License-Identifier: Apache-2.0
# Packages the engine's RTL for Vivado's block designs:  vivado -mode batch -source package.tcl
# Reads settings.tcl, registers.tcl and the Verilog top beside it; writes the folder ip. Never run in
# Vivado by us.
set here [file dirname [file normalize [info script]]]
source $here/settings.tcl

create_project -force package $here/package -part $part
add_files [concat [glob $rtl/*.sv] $here/$wrapper.v]
foreach memory [glob -nocomplain $rtl/*.dat] { add_files $memory }
set_property top $wrapper [current_fileset]
update_compile_order -fileset sources_1
ipx::package_project -root_dir $here/ip -vendor $vendor -library $library -taxonomy /UserIP \
    -import_files -force
set core [ipx::current_core]
set_property name $top $core
set_property version $version $core
set_property supported_families {zynq Production zynquplus Production} $core

ipx::infer_bus_interface ap_clk xilinx.com:signal:clock_rtl:1.0 $core
ipx::infer_bus_interface ap_rst_n xilinx.com:signal:reset_rtl:1.0 $core
ipx::infer_bus_interface interrupt xilinx.com:signal:interrupt_rtl:1.0 $core
foreach bus [concat s_axi_control $masters] {
  ipx::associate_bus_interfaces -busif $bus -clock ap_clk $core
}
ipx::associate_bus_interfaces -clock ap_clk -reset ap_rst_n $core
# Without this, any clock but 100 MHz is refused when the design is validated.
set_property ipi_drc {ignore_freq_hz true} $core

# Without registers in the block, the .hwh has none and pynq makes no register map.
set map [ipx::add_memory_map s_axi_control $core]
set_property slave_memory_map_ref s_axi_control [ipx::get_bus_interfaces s_axi_control -of_objects $core]
set block [ipx::add_address_block Reg $map]
set_property usage register $block
set_property range $range $block
set_property width 32 $block
source $here/registers.tcl
foreach {name offset access fields} $registers {
  set register [ipx::add_register $name $block]
  set_property address_offset $offset $register
  set_property size 32 $register
  foreach {field low bits field_access} $fields {
    set part_of [ipx::add_field $field $register]
    set_property bit_offset $low $part_of
    set_property bit_width $bits $part_of
    set_property access $field_access $part_of
  }
}
ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity $core
ipx::save_core $core
close_project
