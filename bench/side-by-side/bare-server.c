/*
 * An NBD server with nothing around it, to show how much of a cell is the client, the sockets and the system calls. Without files it answers
 * every request at once, a READ with whatever is in its buffer. With files it does the I/O and no more: a WRITE goes to each of them, a READ
 * comes from the first. No locks, no bitmap, no order between connections: it is no mirror. All that came together is answered with one
 * write. Fixed newstyle handshake, simple replies (specification, "Handshake phase", "Simple reply message").
 *
 *     bare-server SOCKET BYTES [FILE...]
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PACKED __attribute__((packed))
enum { OPT_EXPORT_NAME = 1, OPT_ABORT = 2, OPT_INFO = 6, OPT_GO = 7 };
enum { REP_ACK = 1, REP_INFO = 3 };
enum { CMD_READ = 0, CMD_WRITE = 1, CMD_DISC = 2 };
/* HAS_FLAGS, SEND_FLUSH, SEND_FUA, CAN_MULTI_CONN */
static const uint16_t FLAGS = 1 | 4 | 8 | 256;
static const uint32_t ERR_UNSUP = 0x80000001;
static const size_t IN_BYTES = 4 << 20, OUT_BYTES = 16 << 20, PAYLOAD_MAX = 2 << 20;
/* Looks at a socket so often before it sleeps: to be woken costs more than most requests. */
enum { LOOKS = 30 };
static const uint32_t NBD_EIO = 5;
static uint64_t size_bytes;
enum { FILES_MAX = 2 };
static int files[FILES_MAX], file_count;

struct PACKED option { uint64_t magic; uint32_t option, length; };
struct PACKED option_reply { uint64_t magic; uint32_t option, type, length; };
struct PACKED request { uint32_t magic; uint16_t flags, type; uint64_t cookie, offset; uint32_t length; };
struct PACKED reply { uint32_t magic, error; uint64_t cookie; };

static int get(int fd, void *into, size_t bytes) {
  for (char *at = into; bytes > 0;) {
    ssize_t got = read(fd, at, bytes);
    if (got <= 0) return -1;
    at += got;
    bytes -= got;
  }
  return 0;
}

static int put(int fd, const void *from, size_t bytes) {
  for (const char *at = from; bytes > 0;) {
    ssize_t done = write(fd, at, bytes);
    if (done <= 0) return -1;
    at += done;
    bytes -= done;
  }
  return 0;
}

static int answer(int fd, uint32_t option, uint32_t type, const void *data, uint32_t bytes) {
  struct option_reply head = {htobe64(0x3e889045565a9ULL), htobe32(option), htobe32(type), htobe32(bytes)};
  return put(fd, &head, sizeof head) || (bytes > 0 && put(fd, data, bytes));
}

/* 0: requests follow. */
static int handshake(int fd) {
  struct PACKED { uint64_t magic, option; uint16_t flags; } hello = {htobe64(0x4e42444d41474943ULL), htobe64(0x49484156454f5054ULL), htobe16(3)};
  uint32_t client_flags;
  if (put(fd, &hello, sizeof hello) || get(fd, &client_flags, 4)) return -1;
  for (;;) {
    struct option asked;
    char data[65536];
    if (get(fd, &asked, sizeof asked)) return -1;
    uint32_t option = be32toh(asked.option), length = be32toh(asked.length);
    if (length > sizeof data || get(fd, data, length) || option == OPT_ABORT) return -1;
    if (option == OPT_EXPORT_NAME) {
      struct PACKED { uint64_t size; uint16_t flags; } export = {htobe64(size_bytes), htobe16(FLAGS)};
      return put(fd, &export, sizeof export);
    }
    if (option != OPT_GO && option != OPT_INFO) {
      if (answer(fd, option, ERR_UNSUP, NULL, 0)) return -1;
      continue;
    }
    struct PACKED { uint16_t type; uint64_t size; uint16_t flags; } info = {0, htobe64(size_bytes), htobe16(FLAGS)};
    if (answer(fd, option, REP_INFO, &info, sizeof info) || answer(fd, option, REP_ACK, NULL, 0)) return -1;
    if (option == OPT_GO) return 0;
  }
}

static ssize_t receive(int fd, void *into, size_t bytes) {
  for (int look = 0; look < LOOKS; look += 1) {
    ssize_t got = recv(fd, into, bytes, MSG_DONTWAIT);
    if (got >= 0 || errno != EAGAIN) return got;
  }
  return recv(fd, into, bytes, 0);
}

/* The payload of a WRITE is at `data`, that of a READ goes there. */
static uint32_t carry_out(uint32_t type, uint64_t offset, uint32_t length, void *data) {
  if (type == CMD_READ && file_count > 0 && pread(files[0], data, length, offset) != (ssize_t)length) return NBD_EIO;
  if (type != CMD_WRITE) return 0;
  for (int each = 0; each < file_count; each += 1) {
    if (pwrite(files[each], data, length, offset) != (ssize_t)length) return NBD_EIO;
  }
  return 0;
}

static void requests(int fd, unsigned char *in, unsigned char *out) {
  for (size_t have = 0;;) {
    ssize_t got = receive(fd, in + have, IN_BYTES - have);
    if (got <= 0) return;
    have += got;
    size_t at = 0, filled = 0;
    while (have - at >= sizeof(struct request)) {
      struct request *one = (void *)(in + at);
      uint32_t length = be32toh(one->length), type = be16toh(one->type);
      size_t payload = type == CMD_WRITE ? length : 0;
      if (type == CMD_DISC || length > PAYLOAD_MAX) return;
      if (have - at < sizeof *one + payload) break;
      struct reply *done = (void *)(out + filled);
      uint32_t error = carry_out(type, be64toh(one->offset), length, type == CMD_READ ? (void *)(done + 1) : (void *)(one + 1));
      *done = (struct reply){htobe32(0x67446698), htobe32(error), one->cookie};
      filled += sizeof *done + (type == CMD_READ && error == 0 ? length : 0);
      at += sizeof *one + payload;
      if (filled > OUT_BYTES - PAYLOAD_MAX - sizeof *done) {
        if (put(fd, out, filled)) return;
        filled = 0;
      }
    }
    memmove(in, in + at, have - at);
    have -= at;
    if (filled > 0 && put(fd, out, filled)) return;
  }
}

static void *serve(void *argument) {
  int fd = (int)(intptr_t)argument;
  unsigned char *in = malloc(IN_BYTES), *out = calloc(1, OUT_BYTES);
  if (in != NULL && out != NULL && handshake(fd) == 0) requests(fd, in, out);
  free(in);
  free(out);
  close(fd);
  return NULL;
}

int main(int count, char **argument) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (count < 3 || count > 3 + FILES_MAX || strlen(argument[1]) >= sizeof address.sun_path) return 2;
  strcpy(address.sun_path, argument[1]);
  for (int each = 3; each < count; each += 1) {
    files[file_count] = open(argument[each], O_RDWR | O_CLOEXEC);
    if (files[file_count] < 0) {
      perror(argument[each]);
      return 1;
    }
    file_count += 1;
  }
  size_bytes = strtoull(argument[2], NULL, 10);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(listener, (void *)&address, sizeof address) || listen(listener, 64)) {
    perror(argument[1]);
    return 1;
  }
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue;
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) == 0) pthread_detach(thread);
    else close(fd);
  }
}
