/*
 * An NBD client that costs little: it keeps so many requests of one size under way on each of its connections, at random places, sends all
 * that may go with one call and takes all replies that are there with one call. For servers that a usual client holds up.
 * Fixed newstyle handshake with NBD_OPT_GO, simple replies (specification, "Handshake phase", "Simple reply message").
 * Prints the requests that were answered and the seconds that they took.
 *
 *     lean-client SOCKET EXPORT read|write BLOCK-BYTES DEPTH CONNECTIONS BYTES MILLISECONDS
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PACKED __attribute__((packed))
enum { OPT_GO = 7, REP_ACK = 1 };
enum { CMD_READ = 0, CMD_WRITE = 1 };
/* Both flags of the handshake: fixed newstyle, and no zeroes. */
static const uint32_t CLIENT_FLAGS = 3, ERROR_BIT = 0x80000000;
/* How long the replies may take that are still to come at the end. */
static const double GRACE_S = 5;

struct PACKED option { uint64_t magic; uint32_t option, length; };
struct PACKED option_reply { uint64_t magic; uint32_t option, type, length; };
struct PACKED request { uint32_t magic; uint16_t flags, type; uint64_t cookie, offset; uint32_t length; };
struct PACKED reply { uint32_t magic, error; uint64_t cookie; };

struct connection {
  int fd;
  /* Requests that are to be sent, and how many bytes of them and of their payloads went already. */
  struct request *heads;
  unsigned waiting;
  size_t sent;
  unsigned underway;
  unsigned char *in;
  size_t have;
};

static int is_write;
static size_t block, depth;
static uint64_t blocks, answered;
static unsigned char *payload;
static struct iovec *pieces;

static void fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, errno == 0 ? "not what was expected" : strerror(errno));
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

/* xorshift: the same places in each run. */
static uint64_t chance(void) {
  static uint64_t state = 0x9e3779b97f4a7c15ULL;
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

static void get(int fd, void *into, size_t bytes) {
  for (char *at = into; bytes > 0;) {
    ssize_t got = read(fd, at, bytes);
    if (got <= 0) fail("handshake");
    at += got;
    bytes -= got;
  }
}

static void put(int fd, const void *from, size_t bytes) {
  if (write(fd, from, bytes) != (ssize_t)bytes) fail("handshake");
}

static int connected(const char *socket_path, const char *export) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(socket_path) >= sizeof address.sun_path) fail(socket_path);
  strcpy(address.sun_path, socket_path);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, (void *)&address, sizeof address)) fail(socket_path);
  struct PACKED { uint64_t magic, option; uint16_t flags; } hello;
  get(fd, &hello, sizeof hello);
  uint32_t flags = htobe32(CLIENT_FLAGS), length = strlen(export), name_length = htobe32(length);
  struct option go = {htobe64(0x49484156454f5054ULL), htobe32(OPT_GO), htobe32(4 + length + 2)};
  uint16_t no_information = 0;
  put(fd, &flags, sizeof flags);
  put(fd, &go, sizeof go);
  put(fd, &name_length, sizeof name_length);
  if (length > 0) put(fd, export, length);
  put(fd, &no_information, sizeof no_information);
  for (;;) {
    struct option_reply answer;
    char data[4096];
    get(fd, &answer, sizeof answer);
    uint32_t type = be32toh(answer.type), bytes = be32toh(answer.length);
    if (bytes > sizeof data || (type & ERROR_BIT) != 0) fail(export);
    get(fd, data, bytes);
    if (type == REP_ACK) break;
  }
  if (fcntl(fd, F_SETFL, O_NONBLOCK)) fail(socket_path);
  return fd;
}

static void ask(struct connection *one) {
  while (one->underway + one->waiting < depth)
    one->heads[one->waiting++] =
        (struct request){htobe32(0x25609513), 0, htobe16(is_write ? CMD_WRITE : CMD_READ), 0, htobe64(chance() % blocks * block), htobe32(block)};
}

/* What is to be sent, without the bytes that went. */
static unsigned gather(struct connection *one) {
  unsigned count = 0;
  size_t skip = one->sent;
  for (unsigned index = 0; index < one->waiting; index += 1) {
    struct iovec parts[] = {{&one->heads[index], sizeof(struct request)}, {payload, is_write ? block : 0}};
    for (int part = 0; part < 2; part += 1) {
      size_t passed = skip < parts[part].iov_len ? skip : parts[part].iov_len;
      skip -= passed;
      if (parts[part].iov_len == passed) continue;
      pieces[count++] = (struct iovec){(char *)parts[part].iov_base + passed, parts[part].iov_len - passed};
    }
  }
  return count;
}

/* 1: something went. */
static int send_some(struct connection *one) {
  if (one->waiting == 0) return 0;
  ssize_t done = writev(one->fd, pieces, gather(one));
  if (done < 0 && errno == EAGAIN) return 0;
  if (done <= 0) fail("write");
  size_t unit = sizeof(struct request) + (is_write ? block : 0), whole = (one->sent + done) / unit;
  one->sent = (one->sent + done) % unit;
  one->waiting -= whole;
  one->underway += whole;
  memmove(one->heads, one->heads + whole, one->waiting * sizeof *one->heads);
  return 1;
}

/* 1: something came. */
static int take_some(struct connection *one) {
  size_t unit = sizeof(struct reply) + (is_write ? 0 : block);
  ssize_t got = read(one->fd, one->in + one->have, unit * depth - one->have);
  if (got < 0 && errno == EAGAIN) return 0;
  if (got <= 0) fail("read");
  size_t at = 0;
  for (one->have += got; one->have - at >= unit; at += unit) {
    const struct reply *done = (const void *)(one->in + at);
    errno = 0;
    if (be32toh(done->magic) != 0x67446698 || done->error != 0 || one->underway == 0) fail("reply");
    one->underway -= 1;
    answered += 1;
  }
  one->have -= at;
  memmove(one->in, one->in + at, one->have);
  return 1;
}

int main(int count, char **argument) {
  if (count != 9) return 2;
  is_write = strcmp(argument[3], "write") == 0;
  block = strtoul(argument[4], NULL, 10);
  depth = strtoul(argument[5], NULL, 10);
  unsigned connections = strtoul(argument[6], NULL, 10);
  blocks = strtoull(argument[7], NULL, 10) / (block == 0 ? 1 : block);
  double run_s = strtod(argument[8], NULL) / 1000;
  if (block == 0 || depth == 0 || depth > 512 || connections == 0 || blocks == 0) return 2;
  struct connection *all = calloc(connections, sizeof *all);
  struct pollfd *polled = calloc(connections, sizeof *polled);
  payload = malloc(block);
  pieces = calloc(depth * 2, sizeof *pieces);
  if (all == NULL || polled == NULL || payload == NULL || pieces == NULL) fail("memory");
  for (size_t at = 0; at < block; at += 1) payload[at] = chance();
  for (unsigned index = 0; index < connections; index += 1) {
    struct connection *one = &all[index];
    one->heads = calloc(depth, sizeof *one->heads);
    one->in = malloc((sizeof(struct reply) + block) * depth);
    if (one->heads == NULL || one->in == NULL) fail("memory");
    polled[index].fd = one->fd = connected(argument[1], argument[2]);
  }
  double began = now(), end = began + run_s;
  for (unsigned open = 1; open > 0;) {
    int is_over = now() >= end, has_moved = 0;
    open = 0;
    for (unsigned index = 0; index < connections; index += 1) {
      struct connection *one = &all[index];
      if (!is_over) ask(one);
      has_moved |= send_some(one);
      has_moved |= take_some(one);
      open += one->waiting + one->underway;
      polled[index].events = POLLIN | (one->waiting > 0 ? POLLOUT : 0);
    }
    if (is_over && now() > end + GRACE_S) fail("the last replies");
    if (!is_over) open = 1;
    if (open > 0 && !has_moved) poll(polled, connections, 100);
  }
  printf("%llu %.6f\n", (unsigned long long)answered, now() - began);
  return 0;
}
