// SPDX-License-Identifier: Apache-2.0
// openhls_fifo, openhls_ram and openhls_bank against plain C++ containers.
#include <algorithm>

#include "bench.hpp"

namespace {

template <typename Array>
int size_of(const Array& array) {
  return static_cast<int>(sizeof(array) / sizeof(array[0]));
}

int addr_bits(int depth) {
  int bits = 1;
  while (1 << bits < depth) ++bits;
  return bits;
}

Payload write_request(int addr, int depth, const Payload& word) {
  const int low = addr_bits(depth);
  return pack({{static_cast<std::uint64_t>(addr), low}, {bits(word, 0, 64), 64}});
}

void fifo(const Options& options, int i) {
  Bench bench(options);
  Channel& in = SOURCE(bench, fifo_in, i);
  Channel& out = SINK(bench, fifo_out, i);
  const int width = bench.top.fifo_width[i], depth = bench.top.fifo_depth[i];
  const int capacity = depth + bench.top.fifo_block[i];
  in.registered = out.registered = true;
  const int interval = depth == 1 ? 2 : 1;  // of a word, in cycles
  std::deque<Payload> words;
  in.on_fire = [&](const Payload& word) { words.push_back(masked(word, width)); };
  out.on_fire = [&](const Payload& word) {
    bench.check(!words.empty(), out.name + ": a word that was never sent");
    bench.equal(out.name, word, words.front());
    words.pop_front();
  };
  const double p = options.stall;
  const double stalls[][2] = {{p, p}, {0, p}, {p, 0}};
  for (const auto& stall : stalls) {
    bench.reset();
    words.clear();
    bench.paths_until = bench.now + 200;
    in.stall = stall[0];
    out.stall = stall[1];
    const long num_words = 1500;
    for (int k = 0; k < num_words; ++k) in.queue.push_back(bench.random_payload(160));
    out.gate = [] { return false; };
    for (int k = 0; k < 20 * capacity + 20; ++k) bench.cycle();
    // One more may wait in front of the memory.
    const bool held = in.count == capacity || (depth > 1 && in.count == capacity + 1);
    bench.check(held, in.name + ": holds " + std::to_string(in.count) + " words");
    out.gate = [] { return true; };
    const long begin = bench.now;
    bench.run_until(out.name, 20 * num_words, [&] { return out.count == num_words; });
    if (stall[0] == 0 && stall[1] == 0) {
      const bool steady = bench.now - begin <= interval * num_words + 1;
      bench.check(steady, out.name + ": less than a word per interval");
    }
    for (int k = 0; k < 20; ++k) in.queue.push_back(bench.random_payload(160));
    for (int k = 0; k < 10; ++k) bench.cycle();  // reset with words inside
  }
}

// A writer that takes a credit and has its word three cycles later, between a credit and its FIFO.
void credit(const Options& options, int i) {
  Bench bench(options);
  Channel& credits = SINK(bench, credit, i);
  Channel& out = SINK(bench, credit_out, i);
  const int capacity = bench.top.credit_depth[i];
  credits.registered = out.registered = true;
  credits.quiet = false;
  std::uint64_t next = 0;
  out.on_fire = [&](const Payload& word) { bench.equal(out.name, bits(word, 0, 64), next++); };
  bench.every_cycle = [&] {
    bench.check(!bench.top.credit_lost[i], credits.name + ": a word found its FIFO full");
  };
  const double p = options.stall;
  const double stalls[][2] = {{p, p}, {0, p}, {p, 0}};
  for (const auto& stall : stalls) {
    bench.reset();
    next = 0;
    bench.paths_until = bench.now + 200;
    credits.stall = stall[0];
    out.stall = stall[1];
    out.gate = [] { return false; };
    for (int k = 0; k < 20 * capacity + 20; ++k) bench.cycle();
    bench.equal(credits.name + " given", credits.count, capacity);
    out.gate = [] { return true; };
    const long begin = bench.now, num_words = 1500;
    bench.run_until(out.name, 20 * num_words, [&] { return out.count >= num_words; });
    if (stall[0] == 0 && stall[1] == 0 && capacity >= 7) {
      bench.check(bench.now - begin <= num_words + 1, out.name + ": less than a word per cycle");
    }
  }
}

void ram(const Options& options, int i) {
  Bench bench(options);
  Channel& read = SOURCE(bench, ram_rd_req, i);
  Channel& resp = SINK(bench, ram_rd_resp, i);
  Channel& write = SOURCE(bench, ram_wr_req, i);
  const int width = bench.top.ram_width[i], depth = bench.top.ram_depth[i];
  const int low = addr_bits(depth);
  std::vector<Payload> words(depth);
  std::deque<Payload> expected;
  // Reads are noted before writes of their cycle: they return the old word.
  read.on_fire = [&](const Payload& addr) { expected.push_back(words[bits(addr, 0, low)]); };
  write.on_fire = [&](const Payload& request) {
    words[bits(request, 0, low)] = pack({{bits(request, low, width), width}});
  };
  resp.on_fire = [&](const Payload& word) {
    bench.check(!expected.empty(), resp.name + ": a word that was never requested");
    bench.equal(resp.name, word, expected.front());
    expected.pop_front();
  };
  for (int phase = 0; phase < 2; ++phase) {
    bench.reset();
    expected.clear();
    for (int k = 0; k < depth; ++k) {
      write.queue.push_back(write_request(k, depth, bench.random_payload(64)));
    }
    bench.run_until(write.name, 20 * depth + 60, [&] { return write.queue.empty(); });
    bench.paths_until = bench.now + 200;
    const long num_reads = 3000;
    for (int k = 0; k < num_reads; ++k) {
      const int span = k % 500 < 400 ? std::min(depth, 3) : depth;  // often the same word
      read.queue.push_back(pack({{bench.random(0, span - 1), low}}));
      const int addr = static_cast<int>(bench.random(0, span - 1));
      write.queue.push_back(write_request(addr, depth, bench.random_payload(64)));
    }
    const long begin = bench.now;
    bench.run_until(resp.name, 40 * num_reads, [&] { return resp.count == num_reads; });
    if (options.stall == 0) {
      bench.check(bench.now - begin <= num_reads + 1, resp.name + ": less than a word per cycle");
    }
    read.queue.push_back(pack({{0, low}}));
    for (int k = 0; k < 3; ++k) bench.cycle();  // reset with a response held
  }
}

// One side of a bank: takes a half, makes accesses, gives it back; often all in the same cycle.
struct Side {
  Side(Bench& bench, Channel& acquire, Channel& access, Channel& release)
      : bench(bench), acquire(acquire), access(access), release(release) {
    access.gate = [this] { return held > 0 || acquires_now(); };
    release.gate = [this] {
      const std::size_t left = this->access.queue.size();
      return (held > 0 || acquires_now()) &&
             (left == 0 || (left == 1 && this->access.active && !waits()));
    };
  }

  Bench& bench;
  Channel &acquire, &access, &release;
  int most = 1;  // halves at once
  int held = 0;
  std::function<bool()> waits = [] { return false; };  // an access of this cycle does
  std::function<void()> finished;

  // The token waits for rdy, which is given in this cycle.
  bool acquires_now() const { return acquire.waits && acquire.pins.rdy; }

  void on_acquire() {
    bench.check(held < most, acquire.name + ": too many halves at once");
    ++held;
  }
  void on_access() { bench.check(held > 0, access.name + ": the bench lost its half"); }
  void on_release() {
    bench.check(held > 0, release.name + ": the bench lost its half");
    bench.check(access.queue.empty(), release.name + ": the bench released a half too early");
    --held;
    finished();
  }
  void plan(const std::vector<Payload>& accesses) {
    for (const Payload& request : accesses) access.queue.push_back(request);
    release.queue.push_back(pack({{1, 1}}));
    release.stall = bench.chance(0.5) ? 0 : 0.5;  // with the last access, or later
  }
};

class BankTest {
 public:
  BankTest(const Options& options, int i)
      : options_(options),
        bench_(options),
        width_(bench_.top.bank_width[i]),
        depth_(bench_.top.bank_depth[i]),
        resp_(SINK(bench_, bank_rd_resp, i)),
        writer_{bench_, SINK(bench_, bank_w_acquire, i), SOURCE(bench_, bank_wr_req, i),
                SOURCE(bench_, bank_w_release, i)},
        reader_{bench_, SINK(bench_, bank_r_acquire, i), SOURCE(bench_, bank_rd_req, i),
                SOURCE(bench_, bank_r_release, i)} {
    connect();
  }

  // All blocks full, or of random numbers of accesses.
  void run(int num_blocks, bool full) {
    bench_.reset();
    bench_.paths_until = bench_.now + 200;
    blocks_.clear();
    expected_.clear();
    half_ = written_ = read_ = 0;
    writer_.held = reader_.held = 0;
    full_ = full;
    plan_writes();
    plan_reads();
    const long begin = bench_.now;
    bench_.run_until("bank", 40L * num_blocks * (2 * depth_ + 4),
                     [&] { return read_ >= num_blocks; });
    if (options_.stall == 0 && full) {
      const long limit = static_cast<long>(num_blocks + 2) * (depth_ + 2) + num_blocks / 2 * 4;
      bench_.check(bench_.now - begin <= limit, "bank: the sides do not overlap");
    }
  }

 private:
  Options options_;
  Bench bench_;
  int width_, depth_;
  Channel& resp_;
  Side writer_, reader_;
  bool full_ = true;
  std::vector<Payload> halves_[2];
  int half_ = 0, written_ = 0, read_ = 0;
  std::deque<std::vector<Payload>> blocks_;  // released by the writer, not yet by the reader
  std::deque<Payload> expected_;

  void connect() {
    for (Side* side : {&writer_, &reader_}) {
      side->acquire.registered = side->release.registered = true;
    }
    writer_.acquire.quiet = false;  // a half is free from the start
    writer_.most = 2;
    reader_.waits = [this] { return resp_.pins.vld && !resp_.pins.rdy; };
    halves_[0].resize(depth_);
    halves_[1].resize(depth_);
    const int low = addr_bits(depth_);
    writer_.acquire.on_fire = [this](const Payload&) {
      const int taken = writer_.held + static_cast<int>(blocks_.size());
      bench_.check(taken < 2, "bank: a full half given to the writer");
      writer_.on_acquire();
    };
    writer_.access.on_fire = [this, low](const Payload& request) {
      halves_[half_][bits(request, 0, low)] = pack({{bits(request, low, width_), width_}});
      writer_.on_access();
    };
    writer_.release.on_fire = [this](const Payload&) { writer_.on_release(); };
    writer_.finished = [this] {
      blocks_.push_back(halves_[half_]);
      half_ ^= 1;
      ++written_;
      plan_writes();
    };
    reader_.acquire.on_fire = [this](const Payload&) {
      bench_.check(!blocks_.empty(), "bank: an empty half given to the reader");
      reader_.on_acquire();
    };
    reader_.access.on_fire = [this, low](const Payload& request) {
      expected_.push_back(blocks_.front()[bits(request, 0, low)]);
      reader_.on_access();
    };
    reader_.release.on_fire = [this](const Payload&) { reader_.on_release(); };
    reader_.finished = [this] {
      blocks_.pop_front();
      ++read_;
      plan_reads();
    };
    resp_.on_fire = [this](const Payload& word) {
      bench_.check(!expected_.empty(), resp_.name + ": a word that was never requested");
      bench_.equal(resp_.name, word, expected_.front());
      expected_.pop_front();
    };
  }

  void plan_writes() {
    std::vector<Payload> accesses;
    const bool fill = full_ || written_ < 2;
    const int num = fill ? depth_ : static_cast<int>(bench_.random(0, 2 * depth_));
    for (int k = 0; k < num; ++k) {
      const int addr = fill ? k : static_cast<int>(bench_.random(0, depth_ - 1));
      accesses.push_back(write_request(addr, depth_, bench_.random_payload(64)));
    }
    writer_.plan(accesses);
  }

  void plan_reads() {
    std::vector<Payload> accesses;
    const int num = full_ ? depth_ : static_cast<int>(bench_.random(0, 2 * depth_));
    for (int k = 0; k < num; ++k) {
      accesses.push_back(pack({{bench_.random(0, depth_ - 1), addr_bits(depth_)}}));
    }
    reader_.plan(accesses);
  }
};

}  // namespace

void test_fifo(const Options& options) {
  Bench bench(options);
  for (int i = 0; i < size_of(bench.top.fifo_width); ++i) fifo(options, i);
}

void test_credit(const Options& options) {
  Bench bench(options);
  for (int i = 0; i < size_of(bench.top.credit_depth); ++i) credit(options, i);
}

void test_ram(const Options& options) {
  Bench bench(options);
  for (int i = 0; i < size_of(bench.top.ram_width); ++i) ram(options, i);
}

void test_bank(const Options& options) {
  Bench bench(options);
  for (int i = 0; i < size_of(bench.top.bank_width); ++i) {
    BankTest test(options, i);
    test.run(100, true);
    test.run(300, false);
  }
}
