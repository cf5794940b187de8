# SPDX-License-Identifier: Apache-2.0
"""Whole designs from C++ to a folder: what the report says of a loop, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openhls.errors import HlsError
from openhls.project import compile_design

SUMS = """#include <ap_int.h>
#include <hls_burst_maxi.h>
#include <hls_stream.h>
typedef ap_uint<64> Word;
static void fetch(hls::burst_maxi<Word> memory, hls::stream<Word>& words) {
  memory.read_request(0, 16);
fetch_words:
  for (int i = 0; i < 16; i++) {
#pragma HLS pipeline II = 1
    words.write(memory.read());
  }
}
static void add(hls::stream<Word>& words, hls::stream<Word>& sums) {
add_pairs:
  for (int i = 0; i < 8; i++) {
#pragma HLS pipeline II = 1
    BODY
  }
}
static void drop(hls::stream<Word>& sums) {
drop_sums:
  for (int i = 0; i < 8; i++) {
#pragma HLS pipeline II = 1
    sums.read();
  }
}
static void run(hls::burst_maxi<Word> memory) {
#pragma HLS dataflow
  hls::stream<Word> words, sums;
  fetch(memory, words);
  add(words, sums);
  drop(sums);
}
extern "C" void top(hls::burst_maxi<Word> memory) {
#pragma HLS interface mode = m_axi port = memory bundle = gmem0 offset = slave
#pragma HLS interface mode = s_axilite port = memory bundle = control offset = 0x10
  run(memory);
}
"""

CHOOSING = """#include <ap_int.h>
#include <hls_burst_maxi.h>
#include <hls_stream.h>
typedef ap_uint<64> Word;
static void relay(hls::stream<Word>& from, hls::stream<Word>& to) { to.write(from.read()); }
static void run(Word which) {
#pragma HLS dataflow
  hls::stream<Word> streams[4];
  relay(streams[0], streams[1 + int(which & 1)]);
}
extern "C" void top(hls::burst_maxi<Word> memory) {
#pragma HLS interface mode = m_axi port = memory bundle = gmem0 offset = slave
#pragma HLS interface mode = s_axilite port = memory bundle = control offset = 0x10
  memory.read_request(0, 1);
  run(memory.read());
}
"""


def intervals(tmp_path: Path, body: str) -> dict[str, int]:
    """Compile SUMS and return the interval of every process in report.json."""
    source = tmp_path / "top.cpp"
    source.write_text(SUMS.replace("BODY", body))
    compile_design(source, [], "top", tmp_path / "rtl")
    report = json.loads((tmp_path / "rtl" / "report.json").read_text())
    return {name: row["interval"] for name, row in report.items()}


@pytest.mark.parametrize(
    ("body", "interval"),
    [
        ("sums.write(words.read() + 1);", 1),
        ("Word first = words.read(); sums.write(first + words.read());", 2),
        ("Word a = words.read(), b = words.read(); sums.write(a + b + words.read());", 3),
    ],
)
def test_report_tells_the_interval_of_a_loop(tmp_path: Path, body: str, interval: int) -> None:
    """A port that is used twice in an iteration costs a cycle, whatever the pragma says."""
    assert intervals(tmp_path, body) == {"fetch": 1, "add": interval, "drop": 1, "control": 1}


def test_channel_chosen_at_run_time_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "top.cpp"
    source.write_text(CHOOSING)
    message = r"^a channel that 'relay' is called with depends on a condition$"
    with pytest.raises(HlsError, match=message):
        compile_design(source, [], "top", tmp_path / "rtl")
