// SPDX-License-Identifier: Apache-2.0
// The engine as a device on a bus: a process that takes register and memory accesses from a Unix
// socket and answers them (deploy/device.py is the other end). All numbers are little-endian.
//
//   command  u8 code, u8[3] 0, u32 count, u64 address, then `count` bytes for 'w' and 's'
//     'r'  read the register at `address`                  -> 4 bytes
//     'w'  write 4 bytes to the register at `address`
//     'm'  map `count` bytes of memory at `address`; they hold noise
//     'u'  unmap the memory at `address`: from now on the engine sees a decode error there
//     'l'  load `count` bytes from memory                  -> the bytes
//     's'  store `count` bytes to memory
//     'z'  load the bitstream: a new engine, after its reset
//   answer   u32 failed, u32 count, then `count` bytes: what was read, or a text if it failed
//
// The clock runs on while a command is awaited, until no beat moved for kQuiet cycles.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "axi_memory.hpp"
#include "engine.hpp"

namespace sim {

struct Command {
  std::uint8_t code, unused[3];
  std::uint32_t count;
  std::uint64_t address;
};
static_assert(sizeof(Command) == 16, "the layout of a command");

// A connected stream of bytes; both calls are false once the other end is gone.
class Connection {
 public:
  explicit Connection(const std::string& path) : socket_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un place = {};
    place.sun_family = AF_UNIX;
    std::strncpy(place.sun_path, path.c_str(), sizeof place.sun_path - 1);
    if (::connect(socket_, reinterpret_cast<const sockaddr*>(&place), sizeof place) != 0) {
      std::fprintf(stderr, "error: cannot connect to %s\n", path.c_str());
      std::exit(1);
    }
  }
  ~Connection() { ::close(socket_); }

  bool receive(void* to, std::size_t count) {
    for (std::size_t done = 0; done < count;) {
      const ssize_t got = ::recv(socket_, static_cast<char*>(to) + done, count - done, 0);
      if (got <= 0) return false;
      done += std::size_t(got);
    }
    return true;
  }
  bool send(const std::string& bytes) {
    for (std::size_t done = 0; done < bytes.size();) {
      const ssize_t put = ::send(socket_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
      if (put <= 0) return false;
      done += std::size_t(put);
    }
    return true;
  }
  bool waits(int milliseconds) {  // for bytes or the end
    pollfd input = {socket_, POLLIN, 0};
    return ::poll(&input, 1, milliseconds) != 0;
  }

 private:
  int socket_;
};

class Device {
 public:
  explicit Device(const std::string& path) : connection_(path) { load(); }

  void serve() {
    Command command;
    do {
      run_clock();
    } while (connection_.receive(&command, sizeof command) && execute(command));
  }

 private:
  static constexpr unsigned kQuiet = 20'000, kChunk = 128;  // cycles

  void load() {
    engine_ = std::make_unique<Engine>(memory_, 0, 0);
    engine_->reset();
    moved_ = engine_->cycle;
  }

  void run_clock() {
    while (engine_->cycle - moved_ <= kQuiet && !connection_.waits(0)) {
      const std::uint64_t before = engine_->beats();
      for (unsigned i = 0; i < kChunk; i++) engine_->tick();
      if (engine_->beats() != before) moved_ = engine_->cycle;
    }
  }

  bool execute(const Command& command) {
    std::vector<std::uint8_t> bytes;
    if (command.code == 'w' || command.code == 's') {
      bytes.resize(command.count);
      if (!connection_.receive(bytes.data(), bytes.size())) return false;
    }
    switch (command.code) {
      case 'r':
      case 'w':
        return access_register(command, bytes);
      case 'l':
      case 's':
        return access_memory(command, bytes);
      case 'm':
        return map(command);
      case 'u':
        memory_.remove(command.address);
        return answer();
      case 'z':
        load();
        return answer();
      default:
        return refuse("an unknown command");
    }
  }

  bool access_register(const Command& command, const std::vector<std::uint8_t>& bytes) {
    if (command.count != 4 || command.address % 4 != 0) return refuse("a register has 4 bytes");
    moved_ = engine_->cycle;
    const unsigned offset = unsigned(command.address);
    std::uint32_t value;
    if (command.code == 'r') {
      value = engine_->read(offset);
      return answer(&value, sizeof value);
    }
    std::memcpy(&value, bytes.data(), sizeof value);
    engine_->write(offset, value);
    return answer();
  }

  bool access_memory(const Command& command, const std::vector<std::uint8_t>& bytes) {
    std::uint8_t* at = memory_.at(command.address, command.count);
    if (at == nullptr) return refuse("no memory is mapped here");
    if (command.code == 'l') return answer(at, command.count);
    std::memcpy(at, bytes.data(), bytes.size());
    return answer();
  }

  bool map(const Command& command) {
    std::vector<std::uint8_t> noise(command.count);
    for (std::size_t i = 0; i < noise.size(); i++) noise[i] = std::uint8_t(0xA5 ^ (i * 37));
    memory_.add(command.address, std::move(noise));
    return answer();
  }

  bool answer(const void* bytes = nullptr, std::size_t count = 0, std::uint32_t failed = 0) {
    const std::uint32_t head[] = {failed, std::uint32_t(count)};
    std::string text(reinterpret_cast<const char*>(head), sizeof head);
    if (count != 0) text.append(static_cast<const char*>(bytes), count);
    return connection_.send(text);
  }
  bool refuse(const std::string& why) { return answer(why.data(), why.size(), 1); }

  Connection connection_;
  Memory memory_;
  std::unique_ptr<Engine> engine_;
  unsigned long long moved_ = 0;  // the cycle of the last beat or register access
};

}  // namespace sim
