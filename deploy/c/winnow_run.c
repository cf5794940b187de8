/* SPDX-License-Identifier: Apache-2.0
 * Runs a network on the engine of a Linux board, without pynq and without Python:
 *
 *   gcc -O2 -I build/NAME/hls/c deploy/c/winnow_run.c -o winnow_run
 *   ./winnow_run uio0 udmabuf0 program.bin weights.bin images.bin results.bin
 *
 * images.bin holds images as the engine reads them, results.bin gets the last layer's maps as it
 * writes them (docs/program.md, feature maps). The bitstream must be loaded; uio0 is its engine,
 * udmabuf0 memory of u-dma-buf with room for program, weights and the maps of a batch. The file
 * assumes a little-endian processor. winnow_run() is all that another board needs. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "winnow_engine.h"

/* Registers, and memory that processor (`memory`) and engine (`address`) see, with their syncs. */
struct winnow_board {
  uint32_t (*read32)(uint32_t offset);
  void (*write32)(uint32_t offset, uint32_t value);
  void (*to_device)(void);
  void (*from_device)(void);
  uint8_t* memory;
  uint64_t address, bytes;
};

enum { ALIGNED = 64, SECONDS = 60, HEADER_BYTES = WINNOW_HEADER_WORDS * 8 };

static uint64_t aligned(uint64_t bytes) {
  return (bytes + ALIGNED - 1) / ALIGNED * ALIGNED;
}

static uint32_t crc32_of(const uint8_t* bytes, size_t count) {
  uint32_t crc = ~0u;
  for (size_t i = 0; i < count; i++) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

/* Whether a program is whole: its header's checksum, and the layers that it counts. */
static int is_whole(const uint8_t* program, uint64_t bytes) {
  uint64_t header[WINNOW_HEADER_WORDS], layers = 0;
  if (bytes >= sizeof header) {
    memcpy(header, program, sizeof header);
    if (header[WINNOW_HEADER_WORDS - 1] == crc32_of((const uint8_t*)header, HEADER_BYTES - 8)) {
      layers = winnow_field(header, WINNOW_HEADER_NUM_LAYERS);
    }
  }
  if (layers > 0 && bytes / 8 >= WINNOW_HEADER_WORDS + layers * WINNOW_LAYER_WORDS) return 1;
  fprintf(stderr, "error: the program is none, or was cut short\n");
  return 0;
}

/* Where the last layer's map lies in feature memory, and its bytes; its words follow each other. */
static uint64_t result_place(const uint64_t* program, uint64_t* bytes) {
  const uint64_t layers = winnow_field(program, WINNOW_HEADER_NUM_LAYERS);
  const uint64_t* last = program + WINNOW_HEADER_WORDS + (layers - 1) * WINNOW_LAYER_WORDS;
  const uint64_t groups = winnow_field(last, WINNOW_LAYER_CHANNEL_GROUPS);
  const uint64_t plane = winnow_field(last, WINNOW_LAYER_OUT_PLANE_WORDS);
  const int averages = winnow_field(last, WINNOW_LAYER_AVERAGE) != 0;
  const uint64_t words = winnow_field(last, WINNOW_LAYER_RAW) ? 4 : averages ? 1 : plane;
  *bytes = groups * words * 8;
  return winnow_field(last, WINNOW_LAYER_RESULT_BASE) * 8;
}

uint64_t winnow_input_bytes(const uint8_t* program) {
  return winnow_field((const uint64_t*)program, WINNOW_HEADER_INPUT_WORDS) * 8;
}

uint64_t winnow_result_bytes(const uint8_t* program) {
  uint64_t bytes;
  result_place((const uint64_t*)program, &bytes);
  return bytes;
}

/* One start; 0 when all went well. RTL of Vitis has neither an abort nor `axi_error`. */
static int start_and_wait(const struct winnow_board* board) {
  board->write32(WINNOW_REG_CONTROL, WINNOW_CONTROL_START);
  const time_t started = time(NULL);
  uint32_t control;
  while (!((control = board->read32(WINNOW_REG_CONTROL)) & WINNOW_CONTROL_DONE)) {
    if (time(NULL) - started > SECONDS) {
      board->write32(WINNOW_REG_CONTROL, WINNOW_CONTROL_ABORT);
      fprintf(stderr, "error: no result after %d s\n", SECONDS);
      return -1;
    }
  }
  if (control == ~0u) {
    fprintf(stderr, "error: no engine answers: is the bitstream loaded?\n");
    return -1;
  }
  const uint32_t errors = board->read32(WINNOW_REG_AXI_ERROR);
  const uint32_t status = board->read32(WINNOW_REG_STATUS);
  if (errors || WINNOW_STATUS_CODE(status) != WINNOW_OK) {
    fprintf(stderr, "error: image %u, layer %u: %s; axi_error %#x\n", WINNOW_STATUS_IMAGES(status),
            WINNOW_STATUS_LAYERS(status), winnow_status_text(WINNOW_STATUS_CODE(status)), errors);
    return -1;
  }
  return 0;
}

/* Run `count` images, up to WINNOW_MAX_IMAGES, in one start; return 0, or -1 after a message. */
int winnow_run(const struct winnow_board* board, const uint8_t* program, uint64_t program_bytes,
               const uint8_t* weights, uint64_t weight_bytes, const uint8_t* images,
               uint8_t* results, unsigned count) {
  uint64_t header[WINNOW_HEADER_WORDS], result_bytes;
  if (!is_whole(program, program_bytes)) return -1;
  memcpy(header, program, sizeof header);
  winnow_set_field(header, WINNOW_HEADER_NUM_IMAGES, count);
  header[WINNOW_HEADER_WORDS - 1] = crc32_of((const uint8_t*)header, HEADER_BYTES - 8);
  const uint64_t result = result_place((const uint64_t*)program, &result_bytes);
  const uint64_t image_bytes = winnow_field(header, WINNOW_HEADER_IMAGE_WORDS) * 8;
  const uint64_t input = winnow_field(header, WINNOW_HEADER_INPUT_BASE) * 8;
  const uint64_t input_bytes = winnow_input_bytes(program);
  const uint64_t weights_at = aligned(program_bytes);
  const uint64_t features_at = weights_at + aligned(weight_bytes);
  if (count < 1 || count > WINNOW_MAX_IMAGES) {
    fprintf(stderr, "error: a start runs 1..%d images, not %u\n", WINNOW_MAX_IMAGES, count);
    return -1;
  }
  if (features_at + count * image_bytes > board->bytes) {
    fprintf(stderr, "error: %u images need %llu bytes, there are %llu\n", count,
            (unsigned long long)(features_at + count * image_bytes),
            (unsigned long long)board->bytes);
    return -1;
  }
  memcpy(board->memory, program, program_bytes);
  memcpy(board->memory, header, sizeof header);
  memcpy(board->memory + weights_at, weights, weight_bytes);
  for (unsigned i = 0; i < count; i++) {
    memcpy(board->memory + features_at + i * image_bytes + input, images + i * input_bytes,
           input_bytes);
  }
  board->to_device();

  const uint64_t program_at_ = board->address, weights_at_ = board->address + weights_at,
                 features_at_ = board->address + features_at;
#define POINT(name, offset, bits, memory)           \
  board->write32(offset, (uint32_t)(memory##_at_)); \
  board->write32(offset + 4, (uint32_t)(memory##_at_ >> 32));
  WINNOW_PORTS(POINT)
  board->write32(WINNOW_REG_PROGRAM_WORDS, (uint32_t)(program_bytes / 8));
  board->write32(WINNOW_REG_WEIGHT_BEATS, (uint32_t)(weight_bytes * 8 / WINNOW_WEIGHTS_BITS));
  board->write32(WINNOW_REG_FEATURE_WORDS, (uint32_t)(count * image_bytes / 8));
  if (start_and_wait(board) != 0) return -1;
  board->from_device();
  for (unsigned i = 0; i < count; i++) {
    memcpy(results + i * result_bytes, board->memory + features_at + i * image_bytes + result,
           result_bytes);
  }
  return 0;
}

/* Linux: registers through UIO, memory through u-dma-buf. */
static volatile uint32_t* registers;
static char buffer_name[64];

static uint32_t uio_read32(uint32_t offset) {
  return registers[offset / 4];
}
static void uio_write32(uint32_t offset, uint32_t value) {
  registers[offset / 4] = value;
}

static unsigned long long sysfs(const char* kind, const char* name, const char* file) {
  char path[256], text[64] = "";
  snprintf(path, sizeof path, "/sys/class/%s/%s/%s", kind, name, file);
  FILE* f = fopen(path, "r");
  if (f == NULL || fgets(text, sizeof text, f) == NULL) {
    fprintf(stderr, "error: cannot read %s; are the device and its module there?\n", path);
    exit(1);
  }
  fclose(f);
  return strtoull(text, NULL, 0);
}

static void sync_all(const char* action) {
  char path[256];
  snprintf(path, sizeof path, "/sys/class/u-dma-buf/%s/%s", buffer_name, action);
  FILE* f = fopen(path, "w");
  if (f == NULL || fputs("1", f) < 0 || fclose(f) != 0) {
    fprintf(stderr, "error: cannot write %s; run as root\n", path);
    exit(1);
  }
}
static void uio_to_device(void) {
  sync_all("sync_for_device");
}
static void uio_from_device(void) {
  sync_all("sync_for_cpu");
}

static void* mapped(const char* name, size_t bytes) {
  char path[256];
  snprintf(path, sizeof path, "/dev/%s", name);
  const int file = open(path, O_RDWR);
  void* memory =
      file < 0 ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) {
    fprintf(stderr, "error: cannot map %s; run as root\n", path);
    exit(1);
  }
  return memory;
}

static uint8_t* read_file(const char* path, uint64_t* bytes) {
  FILE* f = fopen(path, "rb");
  if (f != NULL && fseek(f, 0, SEEK_END) == 0) {
    *bytes = (uint64_t)ftell(f);
    rewind(f);
    uint8_t* content = malloc(*bytes + 1);
    if (content != NULL && fread(content, 1, *bytes, f) == *bytes && fclose(f) == 0) return content;
  }
  fprintf(stderr, "error: cannot read %s\n", path);
  exit(1);
}

int main(int argc, char** argv) {
  if (argc != 7) {
    fprintf(stderr, "usage: %s UIO UDMABUF PROGRAM WEIGHTS IMAGES RESULTS\n", argv[0]);
    return 1;
  }
  uint64_t program_bytes, weight_bytes, image_bytes;
  uint8_t* program = read_file(argv[3], &program_bytes);
  uint8_t* weights = read_file(argv[4], &weight_bytes);
  uint8_t* images = read_file(argv[5], &image_bytes);
  if (!is_whole(program, program_bytes)) return 1;
  if (image_bytes % winnow_input_bytes(program) != 0) {
    fprintf(stderr, "error: %s has %llu bytes, an image %llu\n", argv[5],
            (unsigned long long)image_bytes, (unsigned long long)winnow_input_bytes(program));
    return 1;
  }
  registers = mapped(argv[1], (size_t)sysfs("uio", argv[1], "maps/map0/size"));
  snprintf(buffer_name, sizeof buffer_name, "%s", argv[2]);
  struct winnow_board board = {uio_read32, uio_write32, uio_to_device, uio_from_device, NULL, 0, 0};
  board.bytes = sysfs("u-dma-buf", argv[2], "size");
  board.address = sysfs("u-dma-buf", argv[2], "phys_addr");
  board.memory = mapped(argv[2], (size_t)board.bytes);
  const unsigned count = (unsigned)(image_bytes / winnow_input_bytes(program));
  const uint64_t result_bytes = count * winnow_result_bytes(program);
  uint8_t* results = malloc(result_bytes + 1);
  FILE* f = fopen(argv[6], "wb");
  if (f == NULL || results == NULL) {
    fprintf(stderr, "error: cannot write %s\n", argv[6]);
    return 1;
  }
  if (winnow_run(&board, program, program_bytes, weights, weight_bytes, images, results, count)) {
    return 1;
  }
  return fwrite(results, 1, result_bytes, f) == result_bytes && fclose(f) == 0 ? 0 : 1;
}
