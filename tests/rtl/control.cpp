// SPDX-License-Identifier: Apache-2.0
// openhls_control against a model of the Vitis registers.
#include <algorithm>

#include "bench.hpp"

namespace {

enum Address : std::uint64_t { kCtrl = 0x00, kGie = 0x04, kIer = 0x08, kIsr = 0x0c, kArgs = 0x10 };
enum Bits : std::uint32_t {
  kStart = 1,
  kDone = 2,
  kIdle = 4,
  kReady = 8,
  kRestart = 0x80,
  kAbort = 0x10000
};

class ControlTest {
 public:
  ControlTest(const Options& options, int i)
      : bench_(options),
        i_(i),
        num_words_(static_cast<int>(bench_.top.control_words[i])),
        words_(num_words_),
        aw_(SOURCE(bench_, control_aw, i)),
        w_(SOURCE(bench_, control_w, i)),
        b_(SINK(bench_, control_b, i)),
        ar_(SOURCE(bench_, control_ar, i)),
        r_(SINK(bench_, control_r, i)),
        start_(SINK(bench_, control_start, i)),
        done_(SOURCE(bench_, control_done, i)) {
    bench_.top.control_hold[i] = bench_.top.control_stopped[i] = 0;
    for (Channel* channel : {&aw_, &w_, &b_, &ar_, &r_, &start_, &done_}) {
      channel->registered = true;
    }
    b_.on_fire = [this](const Payload& resp) { bench_.equal("bresp", resp, Payload{}); };
    r_.on_fire = [this](const Payload& beat) {
      bench_.equal("rresp", bits(beat, 32, 2), 0);
      read_data_ = static_cast<std::uint32_t>(bits(beat, 0, 32));
    };
    start_.on_fire = [this](const Payload& token) {
      bench_.equal("start token", token, pack({{1, 1}}));
      bench_.check(!running_, "control: a run within a run");
      running_ = true;
      latched_ = args();
    };
    done_.on_fire = [this](const Payload&) { running_ = false; };
    bench_.every_cycle = [this] {
      bench_.check(!running_ || args() == latched_, "control: args change during a run");
    };
  }

  void run() {
    for (int round = 0; round < 3; ++round) {
      reset();
      test_registers();
      test_run();
      test_start_while_busy();
      test_start_twice_before_it_is_taken();
      test_auto_restart();
      test_interrupt();
      test_instant_run();
      test_cancel();
      test_stop();
      test_hold();
      write(kCtrl, kStart);
      for (int k = 0; k < 5; ++k) bench_.cycle();  // reset in mid-run
    }
  }

 private:
  Bench bench_;
  int i_;
  int num_words_;
  std::vector<std::uint32_t> words_;  // the model
  Channel &aw_, &w_, &b_, &ar_, &r_, &start_, &done_;
  std::uint32_t read_data_ = 0;
  bool running_ = false;
  std::vector<std::uint32_t> latched_;

  bool writable(int i) const { return bench_.top.control_writable[i_] >> i & 1; }

  std::vector<std::uint32_t> args() const {
    std::vector<std::uint32_t> result;
    for (int w = 0; w < num_words_; ++w) result.push_back(bench_.top.control_args[i_][w]);
    return result;
  }

  void reset() {
    bench_.reset();
    bench_.paths_until = bench_.now + 100;
    std::fill(words_.begin(), words_.end(), 0);
    running_ = false;
    bench_.top.control_readonly[i_] = static_cast<std::uint32_t>(bench_.random());
    expect(kCtrl, kIdle);
  }

  void write(std::uint64_t addr, std::uint32_t data, unsigned strobes = 15) {
    const long before = b_.count;
    aw_.queue.push_back(pack({{addr, 32}}));
    w_.queue.push_back(pack({{data, 32}, {strobes, 4}}));
    bench_.run_until("write", 300, [&] { return b_.count > before; });
    const int word = static_cast<int>(addr - kArgs) / 4;
    if (addr < kArgs || addr % 4 != 0 || word >= num_words_ || !writable(word)) return;
    for (int b = 0; b < 4; ++b) {
      const std::uint32_t mask = 0xffu << 8 * b;
      if (strobes >> b & 1) words_[word] = (words_[word] & ~mask) | (data & mask);
    }
  }

  std::uint32_t read(std::uint64_t addr) {
    const long before = r_.count;
    ar_.queue.push_back(pack({{addr, 32}}));
    bench_.run_until("read", 300, [&] { return r_.count > before; });
    return read_data_;
  }

  void expect(std::uint64_t addr, std::uint32_t want) {
    bench_.equal("register " + std::to_string(addr), read(addr), want);
  }

  void expect_word(std::uint64_t addr) {
    const int word = static_cast<int>(addr - kArgs) / 4;
    std::uint32_t want = 0;
    if (addr >= kArgs && addr % 4 == 0 && word < num_words_) {
      want = writable(word) ? words_[word] : bench_.top.control_readonly[i_];
    }
    expect(addr, want);
  }

  std::uint64_t random_address() {
    const int limit = num_words_ > 4 ? 127 : 31;
    const std::uint64_t addr = bench_.random(kArgs, limit);
    return bench_.chance(0.2) ? addr : addr & ~3ull;
  }

  void test_registers() {
    for (int k = 0; k < 150; ++k) {
      write(random_address(), static_cast<std::uint32_t>(bench_.random()),
            static_cast<unsigned>(bench_.random(0, 15)));
      expect_word(random_address());
    }
    for (int w = 0; w < num_words_; ++w) expect_word(kArgs + 4 * w);
    write(kCtrl, kStart, 14);  // the strobe of byte 0 is missing
    write(kCtrl + 1, kStart);  // not aligned
    expect(kCtrl, kIdle);
    write(kIer, ~0u, 14);
    expect(kIer, 0);
  }

  void wait_for_start() {
    bench_.run_until("start", 300, [&] { return running_; });
  }

  void finish() {
    done_.queue.push_back(pack({{1, 1}}));
    bench_.run_until("done", 300, [&] { return done_.queue.empty(); });
    bench_.cycle();  // the run ends a cycle after its token
  }

  void check_latched(const std::vector<std::uint32_t>& want) {
    for (int w = 0; w < num_words_; ++w) {
      bench_.equal("args of the run", latched_[w], writable(w) ? want[w] : 0);
    }
  }

  void change_args() {
    for (int w = 0; w < num_words_; ++w) {
      write(kArgs + 4 * w, static_cast<std::uint32_t>(bench_.random()));
    }
  }

  void test_run() {
    for (int k = 0; k < 5; ++k) {
      change_args();
      const std::vector<std::uint32_t> before = words_;
      write(kCtrl, kStart);
      bench_.check(!(read(kCtrl) & kIdle), "control: idle after start");
      change_args();
      wait_for_start();
      check_latched(before);
      bench_.check(!(read(kCtrl) & (kIdle | kDone | kStart)), "control: not running");
      finish();
      expect(kCtrl, kIdle | kDone);  // ready was read above
      expect(kCtrl, kIdle);
    }
  }

  void test_start_while_busy() {
    write(kCtrl, kStart);
    wait_for_start();
    expect(kCtrl, kReady);
    write(kCtrl, kStart);
    write(kCtrl, kStart);
    change_args();
    expect(kCtrl, kStart);
    const long runs = start_.count;
    finish();
    wait_for_start();
    check_latched(words_);
    finish();
    for (int k = 0; k < 50; ++k) bench_.cycle();
    bench_.equal("runs", start_.count, runs + 1);
    expect(kCtrl, kIdle | kDone | kReady);
  }

  void test_start_twice_before_it_is_taken() {
    const long runs = start_.count;
    start_.gate = [] { return false; };
    write(kCtrl, kStart);
    const std::vector<std::uint32_t> before = words_;
    change_args();
    write(kCtrl, kStart);
    expect(kCtrl, kStart);
    start_.gate = [] { return true; };
    wait_for_start();
    check_latched(before);
    finish();
    for (int k = 0; k < 50; ++k) bench_.cycle();
    bench_.equal("runs", start_.count, runs + 1);
    read(kCtrl);
  }

  void test_auto_restart() {
    const long runs = start_.count;
    write(kCtrl, kStart | kRestart);
    for (int k = 0; k < 4; ++k) {
      wait_for_start();
      expect(kCtrl, kStart | kRestart | (k > 0 ? kDone : 0));
      if (k == 3) write(kCtrl, 0);  // ap_start stays: one more run follows
      finish();
    }
    wait_for_start();
    finish();
    for (int k = 0; k < 50; ++k) bench_.cycle();
    bench_.equal("runs", start_.count, runs + 5);
    expect(kCtrl, kIdle | kDone | kReady);
  }

  // The kernel takes its token and is done in the same cycle.
  void test_instant_run() {
    const long runs = start_.count;
    const double stall = done_.stall;
    done_.stall = 0;
    done_.queue.push_back(pack({{1, 1}}));
    done_.gate = [&] { return start_.waits && start_.pins.rdy; };
    start_.gate = [&] { return start_.waits; };
    write(kCtrl, kStart);
    bench_.run_until("instant run", 300, [&] { return done_.queue.empty(); });
    bench_.cycle();
    bench_.equal("runs", start_.count, runs + 1);
    expect(kCtrl, kIdle | kDone | kReady);
    done_.gate = start_.gate = [] { return true; };
    done_.stall = stall;
  }

  void test_cancel() {
    long pulses = 0;
    const auto before = bench_.every_cycle;
    bench_.every_cycle = [&] {
      before();
      pulses += bench_.top.control_cancel[i_];
    };
    write(kCtrl, kStart);
    wait_for_start();
    write(kCtrl, kStart);
    write(kCtrl, kAbort, 11);  // the strobe of byte 2 is missing
    expect(kCtrl, kStart | kReady);
    bench_.equal("cancel", pulses, 0);
    write(kCtrl, kAbort);
    for (int k = 0; k < 3; ++k) bench_.cycle();
    bench_.equal("cancel", pulses, 1);
    expect(kCtrl, 0);  // the start that was to come is forgotten
    finish();
    expect(kCtrl, kIdle | kDone);
    bench_.every_cycle = before;
  }

  void pulse_stopped() {
    bench_.top.control_stopped[i_] = 1;
    bench_.cycle();
    bench_.top.control_stopped[i_] = 0;
    running_ = false;
  }

  // A run is ended from outside.
  void test_stop() {
    const long runs = start_.count;
    write(kCtrl, kStart);
    wait_for_start();
    bench_.check(bench_.top.control_running[i_], "control: not running");
    pulse_stopped();
    for (int k = 0; k < 30; ++k) bench_.cycle();
    bench_.check(!bench_.top.control_running[i_], "control: runs on after a stop");
    expect(kCtrl, kIdle | kDone | kReady);
    bench_.equal("runs", start_.count, runs + 1);
  }

  // While it is held, a start waits and tokens of the end count for nothing.
  void test_hold() {
    bench_.top.control_hold[i_] = 1;
    const long runs = start_.count;
    write(kCtrl, kStart);
    for (int k = 0; k < 30; ++k) bench_.cycle();
    bench_.equal("runs", start_.count, runs);
    finish();
    bench_.check(!(read(kCtrl) & (kIdle | kDone)), "control: a token ended a run that is held");
    bench_.top.control_hold[i_] = 0;
    wait_for_start();
    finish();
    expect(kCtrl, kIdle | kDone | kReady);
    test_stop_of_a_held_start();
  }

  // It is over without having begun; no run follows.
  void test_stop_of_a_held_start() {
    const long runs = start_.count;
    bench_.top.control_hold[i_] = 1;
    write(kCtrl, kStart);
    for (int k = 0; k < 30; ++k) bench_.cycle();
    pulse_stopped();
    bench_.top.control_hold[i_] = 0;
    for (int k = 0; k < 30; ++k) bench_.cycle();
    expect(kCtrl, kIdle | kDone);
    bench_.equal("runs", start_.count, runs);
  }

  void test_interrupt() {
    for (std::uint32_t enabled = 0; enabled < 4; ++enabled) {
      write(kIer, enabled);
      expect(kIer, enabled);
      for (const std::uint32_t global : {0u, 1u}) {
        write(kGie, global);
        expect(kGie, global);
        write(kCtrl, kStart);
        wait_for_start();
        finish();
        expect(kIsr, (enabled & 1) | (enabled & 2));
        bench_.equal("interrupt", bench_.top.control_interrupt[i_], global && enabled);
        write(kIsr, enabled);  // toggles
        expect(kIsr, 0);
        bench_.equal("interrupt", bench_.top.control_interrupt[i_], 0);
      }
    }
    write(kIsr, 1);
    expect(kIsr, 1);
    write(kIsr, 1);
    write(kGie, 0);
    write(kIer, 0);
    read(kCtrl);
  }
};

}  // namespace

void test_control(const Options& options) {
  for (int i = 0; i < 2; ++i) ControlTest(options, i).run();
}
