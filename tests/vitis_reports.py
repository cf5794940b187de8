# SPDX-License-Identifier: Apache-2.0
"""Reports in the format of Vitis HLS, written by us: no Vitis was ever run on the engine."""

from __future__ import annotations

from pathlib import Path

from codegen.vitis_report import REPORT

HEAD = """<profile>
<section name="Vitis HLS Report for 'winnow_engine'" level="0"></section>
<ReportVersion><Version>{version}</Version></ReportVersion>
<UserAssignments>
  <unit>ns</unit><ProductFamily>zynq</ProductFamily><Part>xc7z020-clg400-1</Part>
  <TopModelName>winnow_engine</TopModelName><TargetClockPeriod>8.00</TargetClockPeriod>
  <ClockUncertainty>2.16</ClockUncertainty><FlowTarget>vivado</FlowTarget>
</UserAssignments>
<PerformanceEstimates>
  <PipelineType>none</PipelineType>
  <SummaryOfTimingAnalysis><unit>ns</unit>
    <EstimatedClockPeriod>{clock}</EstimatedClockPeriod></SummaryOfTimingAnalysis>
  <SummaryOfOverallLatency><unit>clock cycles</unit>
    <Best-caseLatency>undef</Best-caseLatency><Worst-caseLatency>undef</Worst-caseLatency>
  </SummaryOfOverallLatency>
  <SummaryOfLoopLatency>
    <each_layer><TripCount>undef</TripCount><Latency>undef</Latency>
      <IterationLatency>undef</IterationLatency></each_layer>
  </SummaryOfLoopLatency>
</PerformanceEstimates>
"""
AREA = """<AreaEstimates>
  <Resources><BRAM_18K>186</BRAM_18K><{dsp}>64</{dsp}><FF>41002</FF><LUT>52100</LUT><URAM>0</URAM>
  </Resources>
  <AvailableResources><BRAM_18K>280</BRAM_18K><DSP>220</DSP><FF>106400</FF><LUT>53200</LUT>
    <URAM>0</URAM></AvailableResources>
</AreaEstimates>
"""
LOOP = """<{tag}><Name>{name}</Name><Slack>2.16</Slack><TripCount>undef</TripCount>
<PipelineII>{ii}</PipelineII><PipelineDepth>{depth}</PipelineDepth><InstanceList/></{tag}>
"""
LOG = """INFO: [HLS 200-10] Running 'vitis_hls'
INFO: [HLS 200-1470] Pipelining result : Target II = 1, Final II = 1, Depth = 9, loop 'each_step'
WARNING: [HLS 200-885] The II Violation in module 'load_v' (loop 'each_slice'): Unable to schedule
WARNING: [HLS 214-169] There are a total of 2 such instances of non-canonical statements
WARNING: [HLS 214-169] There are a total of 2 such instances of non-canonical statements
WARNING: [HLS 200-40] Skipped source file
"""
REPORTED = (
    "[HLS 200-885] The II Violation in module 'load_v' (loop 'each_slice'): Unable to schedule",
    "[HLS 214-169] There are a total of 2 such instances of non-canonical statements",
)


def report(loops: dict[str, int], clock: str = "6.21", dsp: str = "DSP") -> str:
    """Return the text of a csynth.xml whose modules are named after their loops."""
    modules = ""
    for name, ii in loops.items():
        inner = LOOP.format(tag=name, name=name, ii=ii, depth=9)
        outer = f"<each_block><TripCount>undef</TripCount>{inner}</each_block>"
        modules += (
            f"<Module><Name>{name}_process</Name><PerformanceEstimates><SummaryOfLoopLatency>"
            f"{outer}</SummaryOfLoopLatency></PerformanceEstimates></Module>\n"
        )
    head = HEAD.format(version="2022.2", clock=clock)
    return (
        f"{head}{AREA.format(dsp=dsp)}<ModuleInformation>{modules}</ModuleInformation></profile>\n"
    )


def leave(hls: Path, xml: str, log: str = LOG) -> None:
    """Leave a report and a log in a project, as Vitis would."""
    path = hls / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(xml)
    (hls / "vitis.log").write_text(log)
