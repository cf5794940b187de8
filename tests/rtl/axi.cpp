// SPDX-License-Identifier: Apache-2.0
// openhls_axi_reader and openhls_axi_writer against an AXI4 memory that checks the protocol.
#include <algorithm>

#include "bench.hpp"

namespace {

constexpr long kPage = 4096;

struct Port {
  int bits;
  int burst;
  int outstanding;
  int requests;
  std::uint64_t base;

  int bytes() const { return bits / 8; }
};

struct Burst {
  std::uint64_t addr;
  int beats;
};

// What is left of the requests: the bursts must cover them in order.
class Coverage {
 public:
  Coverage(Bench& bench, const Port& port) : bench_(bench), port_(port) {}

  void clear() { left_.clear(); }
  bool empty() const { return left_.empty(); }

  void add(const Payload& request) {
    const std::uint64_t length = bits(request, 32, 32);
    if (length == 0) return;
    left_.push_back({port_.base + bits(request, 0, 32) * port_.bytes(), length});
  }

  // Checks an AR or AW payload; returns the burst.
  Burst take(const std::string& name, const Payload& payload) {
    const Burst burst{bits(payload, 0, 64), static_cast<int>(bits(payload, 64, 8)) + 1};
    bench_.check(!left_.empty(), name + ": a burst that was never requested");
    bench_.equal(name + " address", burst.addr, left_.front().addr);
    bench_.equal(name + " size", 1ull << bits(payload, 72, 3), port_.bytes());
    bench_.equal(name + " burst type", bits(payload, 75, 2), 1);
    bench_.equal(name + " cache", bits(payload, 77, 4), 3);
    bench_.equal(name + " prot", bits(payload, 81, 3), 0);
    bench_.check(burst.beats <= port_.burst, name + ": burst too long");
    const std::uint64_t end = burst.addr + static_cast<std::uint64_t>(burst.beats) * port_.bytes();
    bench_.check(burst.addr / kPage == (end - 1) / kPage, name + ": burst crosses 4 KiB");
    Left& left = left_.front();
    bench_.check(static_cast<std::uint64_t>(burst.beats) <= left.words, name + ": burst too far");
    const bool full = burst.beats == port_.burst || end % (port_.burst * port_.bytes()) == 0;
    bench_.check(full || static_cast<std::uint64_t>(burst.beats) == left.words,
                 name + ": burst too short");
    left.addr = end;
    left.words -= burst.beats;
    if (left.words == 0) left_.pop_front();
    return burst;
  }

 private:
  struct Left {
    std::uint64_t addr;
    std::uint64_t words;
  };

  Bench& bench_;
  const Port& port_;
  std::deque<Left> left_;
};

std::uint64_t hash(std::uint64_t x) {
  x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15ull;
  return x ^ (x >> 29);
}

Payload word_at(std::uint64_t addr, int width) {
  return masked(pack({{hash(addr), 64}, {hash(~addr), 64}}), width);
}

std::uint64_t random_base(Bench& bench, int bytes) {
  return (bench.random() & 0xffff'ffff'fff0'0000ull) % (1ull << 60) + bench.random(0, 2000) * bytes;
}

// Every alignment within 4 KiB, or random places.
std::vector<Payload> random_requests(Bench& bench, const Port& port, bool sweep, long num_words) {
  std::vector<Payload> requests;
  for (std::uint64_t i = 0; num_words > 0; ++i) {
    std::uint64_t length = bench.random(1, bench.chance(0.2) ? 600 : bench.chance(0.5) ? 40 : 3);
    std::uint64_t offset = bench.random(0, 5000);
    if (sweep) {
      offset = i % (kPage / port.bytes());
      length = bench.random(1, 40);
    } else if (bench.chance(0.05)) {
      length = 0;
    } else if (bench.chance(0.1)) {
      offset = bench.random(0xf000'0000u, 0xff00'0000u);
    }
    requests.push_back(pack({{offset, 32}, {length, 32}}));
    num_words -= static_cast<long>(length);
  }
  return requests;
}

long total_words(const std::vector<Payload>& requests) {
  long words = 0;
  for (const Payload& request : requests) words += static_cast<long>(bits(request, 32, 32));
  return words;
}

// A response, OKAY except by `chance`.
std::uint64_t random_resp(Bench& bench, double chance) {
  return bench.chance(chance) ? bench.random(1, 3) : 0;
}

class ReaderTest {
 public:
  ReaderTest(const Options& options, int i)
      : options_(options),
        bench_(options),
        i_(i),
        port_{static_cast<int>(bench_.top.axi_bits[i]), static_cast<int>(bench_.top.axi_burst[i]),
              static_cast<int>(bench_.top.axi_outstanding[i]),
              static_cast<int>(bench_.top.axi_requests[i]), 0},
        coverage_(bench_, port_),
        ar_(SOURCE(bench_, reader_ar, i)),
        r_(SINK(bench_, reader_r, i)),
        m_ar_(SINK(bench_, reader_m_ar, i)),
        m_r_(SOURCE(bench_, reader_m_r, i)) {
    bench_.top.reader_halt[i] = 0;
    ar_.registered = r_.registered = m_ar_.registered = m_r_.registered = true;
    connect();
  }

  void run(bool sweep, long num_words, double errors) {
    start(errors);
    const std::vector<Payload> requests = random_requests(bench_, port_, sweep, num_words);
    const long words = total_words(requests);
    ar_.queue.assign(requests.begin(), requests.end());
    bench_.run_until("reader", 40 * words + 2000, [&] { return r_.count == words; });
    bench_.run_until("reader idle", 2000, [&] { return ar_.queue.empty() && idle(); });
    bench_.check(coverage_.empty() && expected_.empty(), "reader: words are missing");
  }

  // Nobody takes words: REQUESTS + 1 requests are accepted, and the bus is not blocked.
  void run_blocked() {
    start(0);
    r_.gate = [] { return false; };
    for (int k = 0; k < port_.requests + 1; ++k) ar_.queue.push_back(pack({{7, 32}, {600, 32}}));
    bench_.run_until("blocked reader", 200, [&] { return ar_.queue.empty(); });
    bench_.run_until("blocked reader", 200000, [&] { return m_ar_.count > 0 && under_ == 0; });
    r_.gate = [] { return true; };
    for (int k = 0; k < 50; ++k) bench_.cycle();  // the next reset comes in mid-run
  }

  // Halted at any time, it finishes what is under way and offers nothing new.
  void run_halted() {
    for (int round = 0; round < 20; ++round) {
      start(0);
      const std::vector<Payload> requests = random_requests(bench_, port_, false, 2000);
      ar_.queue.assign(requests.begin(), requests.end());
      for (long k = bench_.random(0, 300); k > 0; --k) bench_.cycle();
      bench_.top.reader_halt[i_] = 1;
      bench_.cycle();
      const long offered = m_ar_.count + m_ar_.waits;
      bench_.run_until("halted reader", 5000, [&] { return drained() && under_ == 0; });
      for (int k = 0; k < 30; ++k) {
        bench_.cycle();
        bench_.check(drained() && !m_ar_.waits, "reader: a burst after it was drained");
      }
      bench_.check(m_ar_.count <= offered + 1, "reader: bursts after a halt");
      bench_.top.reader_halt[i_] = 0;
    }
  }

  void run_fast() {
    start(0);
    ar_.queue.assign(4, pack({{0, 32}, {600, 32}}));
    const long begin = bench_.now;
    bench_.run_until("fast reader", 100000, [&] { return r_.count == 2400; });
    const bool fast = bench_.now - begin < 2400 + 60;  // a FIFO of one burst waits for each
    bench_.check(fast || port_.burst == 1 || options_.stall > 0, "reader: below a word per cycle");
  }

 private:
  Options options_;
  Bench bench_;
  int i_;
  Port port_;
  Coverage coverage_;
  Channel &ar_, &r_, &m_ar_, &m_r_;
  std::deque<Payload> expected_;
  int under_ = 0;
  bool pending_ = false, error_ = false, bad_beat_ = false;
  double errors_ = 0;

  bool idle() { return bench_.top.reader_idle[i_]; }
  bool drained() { return bench_.top.reader_drained[i_]; }

  void start(double errors) {
    bench_.reset();
    bench_.paths_until = bench_.now + 100;
    coverage_.clear();
    expected_.clear();
    under_ = 0;
    pending_ = error_ = false;
    errors_ = errors;
    port_.base = bench_.top.reader_base[i_] = random_base(bench_, port_.bytes());
  }

  void connect() {
    ar_.on_fire = [this](const Payload& request) {
      coverage_.add(request);
      const std::uint64_t addr = port_.base + bits(request, 0, 32) * port_.bytes();
      for (std::uint64_t k = 0; k < bits(request, 32, 32); ++k) {
        expected_.push_back(word_at(addr + k * port_.bytes(), port_.bits));
      }
    };
    r_.on_fire = [this](const Payload& word) {
      bench_.check(!expected_.empty(), r_.name + ": a word that was never requested");
      bench_.equal(r_.name, word, expected_.front());
      expected_.pop_front();
    };
    m_ar_.on_fire = [this](const Payload& payload) {
      const Burst burst = coverage_.take(m_ar_.name, payload);
      bench_.check(++under_ <= port_.outstanding, m_ar_.name + ": too many bursts under way");
      for (int k = 0; k < burst.beats; ++k) {
        const Payload word = word_at(burst.addr + k * port_.bytes(), port_.bits);
        const std::uint64_t resp = random_resp(bench_, errors_);
        m_r_.queue.push_back(pack({{bits(word, 0, 64), 64},
                                   {bits(word, 64, 64), 64},
                                   {resp, 2},
                                   {k == burst.beats - 1, 1}}));
      }
    };
    m_r_.on_fire = [this](const Payload& beat) {
      bad_beat_ = bits(beat, 128, 2) != 0;
      under_ -= static_cast<int>(bits(beat, 130, 1));
    };
    bench_.every_cycle = [this] { check_cycle(); };
  }

  void check_cycle() {
    bench_.check(!m_r_.active || m_r_.pins.rdy, m_r_.name + ": the reader did not keep room");
    bench_.check(!idle() || !pending_, "reader: idle while words are missing");
    pending_ = !expected_.empty();  // in the next cycle, before its handshakes
    bench_.equal("reader error", bench_.top.reader_error[i_], error_);
    const bool clear = bench_.chance(0.02);
    bench_.top.reader_clear[i_] = clear;
    error_ = (error_ && !clear) || bad_beat_;
    bad_beat_ = false;
  }
};

class WriterTest {
 public:
  WriterTest(const Options& options, int i)
      : options_(options),
        bench_(options),
        i_(i),
        port_{static_cast<int>(bench_.top.axi_bits[i]), static_cast<int>(bench_.top.axi_burst[i]),
              static_cast<int>(bench_.top.axi_outstanding[i]),
              static_cast<int>(bench_.top.axi_requests[i]), 0},
        coverage_(bench_, port_),
        aw_(SOURCE(bench_, writer_aw, i)),
        w_(SOURCE(bench_, writer_w, i)),
        b_(SINK(bench_, writer_b, i)),
        m_aw_(SINK(bench_, writer_m_aw, i)),
        m_w_(SINK(bench_, writer_m_w, i)),
        m_b_(SOURCE(bench_, writer_m_b, i)) {
    bench_.top.writer_halt[i] = 0;
    for (Channel* channel : {&aw_, &w_, &b_, &m_aw_, &m_w_, &m_b_}) channel->registered = true;
    connect();
  }

  // `order`: 0 the memory takes AW and W freely, 1 AW only once W is offered, 2 W only after AW.
  void run(bool sweep, long num_words, double errors, int order) {
    start(errors, order);
    const std::vector<Payload> requests = random_requests(bench_, port_, sweep, num_words);
    const long num_requests = static_cast<long>(requests.size());
    const long words = total_words(requests);
    aw_.queue.assign(requests.begin(), requests.end());
    for (long k = 0; k < words; ++k) w_.queue.push_back(bench_.random_payload(port_.bits));
    bench_.run_until("writer", 60 * words + 2000, [&] { return b_.count == num_requests; });
    bench_.check(coverage_.empty() && words_.empty() && idle(), "writer: words are missing");
    bench_.check(w_.queue.empty(), "writer: words left");
  }

  // No words come: REQUESTS + 1 requests are accepted, and the bus is not touched.
  void run_starved() {
    start(0, 0);
    for (int k = 0; k < port_.requests + 1; ++k) aw_.queue.push_back(pack({{7, 32}, {600, 32}}));
    bench_.run_until("starved writer", 400, [&] { return aw_.queue.empty(); });
    for (int k = 0; k < 50; ++k) bench_.cycle();
    bench_.equal("writer bursts without words", m_aw_.count, 0);
    for (int k = 0; k < 300; ++k) w_.queue.push_back(bench_.random_payload(port_.bits));
    for (int k = 0; k < 200; ++k) bench_.cycle();  // the next reset comes in mid-run
  }

  // Halted at any time, it finishes what it has offered and offers nothing new.
  void run_halted() {
    for (int round = 0; round < 20; ++round) {
      start(0, round % 3);
      const std::vector<Payload> requests = random_requests(bench_, port_, false, 2000);
      aw_.queue.assign(requests.begin(), requests.end());
      for (int k = 0; k < 2000; ++k) w_.queue.push_back(bench_.random_payload(port_.bits));
      for (long k = bench_.random(0, 300); k > 0; --k) bench_.cycle();
      bench_.top.writer_halt[i_] = 1;
      bench_.cycle();
      const long offered = m_aw_.count + m_aw_.waits;
      bench_.run_until("halted writer", 5000, [&] { return drained(); });
      for (int k = 0; k < 30; ++k) {
        bench_.check(under_ == 0 && bursts_.empty(), "writer: drained with bursts under way");
        bench_.check(!m_aw_.waits && !m_w_.waits, "writer: a burst after it was drained");
        bench_.cycle();
      }
      bench_.check(m_aw_.count <= offered + 1, "writer: bursts after a halt");
      bench_.top.writer_halt[i_] = 0;
    }
  }

  // Tokens that nobody takes do not block.
  void run_fast() {
    start(0, 0);
    b_.gate = [] { return false; };
    aw_.queue.assign(4, pack({{0, 32}, {600, 32}}));
    for (int k = 0; k < 2400; ++k) w_.queue.push_back(bench_.random_payload(port_.bits));
    const long begin = bench_.now;
    bench_.run_until("fast writer", 100000, [&] { return acked_ == 4; });
    const bool fast = bench_.now - begin < 2400 + 300;  // a burst of 256 must come in first
    bench_.check(fast || port_.burst == 1 || options_.stall > 0, "writer: below a word per cycle");
    b_.gate = [] { return true; };
    bench_.run_until("writer tokens", 1000, [&] { return b_.count == 4; });
  }

 private:
  struct Request {
    std::uint64_t left;  // words not acknowledged
  };

  Options options_;
  Bench bench_;
  int i_;
  Port port_;
  Coverage coverage_;
  Channel &aw_, &w_, &b_, &m_aw_, &m_w_, &m_b_;
  std::deque<Payload> words_, beats_;    // sent to the writer; come from it
  std::deque<Burst> bursts_, answered_;  // without all of their beats; without their response
  std::deque<Request> requests_;
  long promised_ = 0, acked_ = 0;
  int under_ = 0, order_ = 0;
  bool pending_ = false, error_ = false, bad_resp_ = false;
  double errors_ = 0;

  bool idle() { return bench_.top.writer_idle[i_]; }
  bool drained() { return bench_.top.writer_drained[i_]; }

  void start(double errors, int order) {
    bench_.reset();
    bench_.paths_until = bench_.now + 100;
    coverage_.clear();
    words_.clear();
    beats_.clear();
    bursts_.clear();
    answered_.clear();
    requests_.clear();
    promised_ = acked_ = 0;
    under_ = 0;
    pending_ = error_ = false;
    errors_ = errors;
    order_ = order;
    port_.base = bench_.top.writer_base[i_] = random_base(bench_, port_.bytes());
  }

  void connect() {
    m_aw_.gate = [this] { return order_ != 1 || m_w_.waits || !beats_.empty(); };
    m_w_.gate = [this] { return order_ != 2 || !bursts_.empty(); };
    aw_.on_fire = [this](const Payload& request) {
      coverage_.add(request);
      requests_.push_back({bits(request, 32, 32)});
    };
    w_.on_fire = [this](const Payload& word) { words_.push_back(masked(word, port_.bits)); };
    m_aw_.on_fire = [this](const Payload& payload) {
      const Burst burst = coverage_.take(m_aw_.name, payload);
      bench_.check(++under_ <= port_.outstanding, m_aw_.name + ": too many bursts under way");
      promised_ += burst.beats;
      bench_.check(promised_ <= w_.count, m_aw_.name + ": a burst before its words");
      bursts_.push_back(burst);
    };
    m_w_.on_fire = [this](const Payload& beat) {
      bench_.check(!words_.empty(), m_w_.name + ": a word that was never sent");
      bench_.equal(m_w_.name, masked(beat, 128), words_.front());
      bench_.equal(m_w_.name + " strobes", bits(beat, 128, 16), (1u << port_.bytes()) - 1);
      words_.pop_front();
      beats_.push_back(beat);
    };
    m_b_.on_fire = [this](const Payload& resp) { on_response(resp); };
    b_.on_fire = [this](const Payload& token) {
      bench_.equal(b_.name, token, pack({{1, 1}}));
      settle();
      bench_.check(acked_ >= b_.count, b_.name + ": a token before its acknowledgement");
    };
    bench_.every_cycle = [this] { check_cycle(); };
  }

  // Requests that need no further response, in order.
  void settle() {
    while (!requests_.empty() && requests_.front().left == 0) {
      requests_.pop_front();
      ++acked_;
    }
  }

  void on_response(const Payload& resp) {
    settle();
    bench_.check(!requests_.empty() && !answered_.empty(), m_b_.name + ": the bench is wrong");
    requests_.front().left -= answered_.front().beats;
    answered_.pop_front();
    settle();
    --under_;
    bad_resp_ = bits(resp, 0, 2) != 0;
  }

  // Beats and bursts meet here, whichever came first.
  void match_beats() {
    while (!bursts_.empty() && static_cast<int>(beats_.size()) >= bursts_.front().beats) {
      const int num_beats = bursts_.front().beats;
      for (int k = 0; k < num_beats; ++k) {
        bench_.equal(m_w_.name + " last", bits(beats_.front(), 144, 1), k == num_beats - 1);
        beats_.pop_front();
      }
      answered_.push_back(bursts_.front());
      bursts_.pop_front();
      m_b_.queue.push_back(pack({{random_resp(bench_, errors_), 2}}));
    }
  }

  void check_cycle() {
    match_beats();
    settle();
    bench_.check(!idle() || !pending_, "writer: idle while a request is pending");
    pending_ = !requests_.empty();  // in the next cycle, before its handshakes
    bench_.equal("writer error", bench_.top.writer_error[i_], error_);
    const bool clear = bench_.chance(0.02);
    bench_.top.writer_clear[i_] = clear;
    error_ = (error_ && !clear) || bad_resp_;
    bad_resp_ = false;
  }
};

constexpr int kMasters = 5;

}  // namespace

void test_reader(const Options& options) {
  const long words = options.stall > 0.5 ? 3000 : 8000;
  for (int i = 0; i < kMasters; ++i) {
    ReaderTest test(options, i);
    test.run_blocked();
    test.run_halted();
    test.run_fast();
    test.run(true, options.stall > 0 ? words : 22000, 0);
    test.run(false, words, 0.02);
  }
}

void test_writer(const Options& options) {
  const long words = options.stall > 0.5 ? 2000 : 5000;
  for (int i = 0; i < kMasters; ++i) {
    WriterTest test(options, i);
    test.run_starved();
    test.run_halted();
    test.run_fast();
    test.run(true, options.stall > 0 ? words : 22000, 0, 0);
    for (int order = 0; order < 3; ++order) test.run(false, words, 0.05, order);
  }
}
