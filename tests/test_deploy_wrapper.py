# SPDX-License-Identifier: Apache-2.0
"""The plain Verilog top that Vivado takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from codegen.emit import emit_engine
from codegen.ports import PORTS, TOP
from deploy.wrapper import pins_of, wrapper, write_wrapper
from openhls.project import compile_design
from tests.engines import CACHE, ENGINES
from winnow.config import TargetConfig
from winnow.errors import ToolError

SMALL = (
    "module f (\n  input  logic ap_clk,\n  output logic [7:0] m_axi_gmem3_AWADDR\n);\nendmodule\n"
)


def test_pins_are_those_of_the_engine_with_attributes() -> None:
    assert wrapper(SMALL, "f").splitlines()[2:] == [
        "module f_ip (",
        '  (* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 ap_clk CLK" *)',
        '  (* X_INTERFACE_PARAMETER = "ASSOCIATED_BUSIF s_axi_control:m_axi_gmem0:m_axi_gmem1:'
        'm_axi_gmem2:m_axi_gmem3:m_axi_gmem4, ASSOCIATED_RESET ap_rst_n" *)',
        "  input wire ap_clk,",
        '  (* X_INTERFACE_INFO = "xilinx.com:interface:aximm:1.0 m_axi_gmem3 AWADDR" *)',
        '  (* X_INTERFACE_PARAMETER = "PROTOCOL AXI4, ADDR_WIDTH 64, READ_WRITE_MODE WRITE_ONLY, '
        'SUPPORTS_NARROW_BURST 0, NUM_WRITE_OUTSTANDING 16, MAX_BURST_LENGTH 64" *)',
        "  output wire [7:0] m_axi_gmem3_AWADDR",
        ");",
        "  f inner (",
        "    .ap_clk(ap_clk),",
        "    .m_axi_gmem3_AWADDR(m_axi_gmem3_AWADDR)",
        "  );",
        "endmodule",
    ]


def test_rtl_without_the_top_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"^the RTL has no module 'g' with pins as openhls writes"):
        wrapper(SMALL, "g")
    with pytest.raises(ToolError, match=r"^'.*' has no winnow_engine.sv: Vivado's wrapper is made"):
        write_wrapper(tmp_path, TOP)


@pytest.fixture(scope="module")
def rtl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the RTL of the default engine and its wrapper, in one folder."""
    folder = tmp_path_factory.mktemp("wrapper")
    emit_engine(folder / "hls", ENGINES["default"], TargetConfig())
    source, include = folder / "hls" / "src" / "top.cpp", folder / "hls" / "include"
    compile_design(source, [include], TOP, folder / "rtl", CACHE / "openhls")
    (folder / "rtl" / f"{TOP}_ip.v").write_text(write_wrapper(folder / "rtl", TOP))
    return folder / "rtl"


def test_every_pin_of_the_engine_has_its_interface(rtl: Path) -> None:
    text = (rtl / f"{TOP}_ip.v").read_text()
    pins = pins_of((rtl / f"{TOP}.sv").read_text(), TOP)
    assert len(pins) == 88
    assert text.count("X_INTERFACE_INFO") == len(pins)
    assert text.count("X_INTERFACE_PARAMETER") == 3 + 1 + len(PORTS)
    assert not re.search(r"\blogic\b|always_|::", text)


def test_slang_elaborates_the_engine_in_its_wrapper(rtl: Path) -> None:
    """A second reader of SystemVerilog: pip install pyslang."""
    driver = pytest.importorskip("pyslang.driver").Driver()
    driver.addStandardArgs()
    files = [str(path) for path in sorted(rtl.iterdir()) if path.suffix in (".sv", ".v")]
    assert driver.parseCommandLine(" ".join(["slang", "-Wextra", "--top", f"{TOP}_ip", *files]))
    assert driver.processOptions()
    assert driver.parseAllSources()
    driver.reportCompilation(driver.createCompilation(), True)
    assert driver.reportDiagnostics(True)
