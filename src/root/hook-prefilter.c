/*
 * pre-build-hook and post-build-hook, where nix-broker was built with a C compiler. Nix runs both for every build of the
 * machine, and hardly any of them concerns us: this looks, at the price of a program's start, and runs the next hook. For a
 * build that may concern us it asks the linker, and prints its answer. Where there is none, and for whatever is unusual, the
 * script beside it does the work, pre-build-hook.sh or post-build-hook.sh.
 *
 * It runs as root on files that others wrote: buffers have fixed sizes, and it looks for one word. Compiled twice, with WHEN as
 * "pre" and as "post".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define FEATURE "nix-broker"
#define NEXT "next_" WHEN "_build_hook="
#define RUNTIME "runtime_dir="
#define MAX_DERIVATION (16 * 1024 * 1024)
/* In seconds: a linker that does not answer is done without. To settle a build may mean reading gigabytes. */
#ifndef PATIENCE
#define PATIENCE (!strcmp(WHEN, "pre") ? 10 : 60)
#endif

static const char *next = "";
static const char *runtime = "/run/nix-broker";

/* The file, or -1: nothing that is no regular file is read, and opening it waits for nobody. */
static int open_file(const char *path, struct stat *status) {
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file < 0) return -1;
  if (fstat(file, status) == 0 && S_ISREG(status->st_mode)) return file;
  errno = EINVAL;
  return -1;
}

/* False if the script had better read it. */
static bool read_config(void) {
  static char text[64 * 1024];
  const char *path = getenv("NIX_BROKER_ROOT_CONFIG");
  struct stat status;
  int file = open_file(path && *path ? path : "/etc/nix-broker/root.conf", &status);
  if (file < 0) return errno == ENOENT;
  /* A file of somebody else's is not believed. */
  if (status.st_uid != geteuid()) return true;
  size_t length = 0;
  ssize_t got;
  while ((got = read(file, text + length, sizeof text - 1 - length)) > 0) length += got;
  if (got < 0 || length == sizeof text - 1 || memchr(text, 0, length)) return false;
  for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
    if (!strncmp(line, NEXT, strlen(NEXT))) next = line + strlen(NEXT);
    if (!strncmp(line, RUNTIME, strlen(RUNTIME))) runtime = line + strlen(RUNTIME);
  }
  return true;
}

/* False if the derivation surely does not ask for us. A remote builder runs the hook, too, and has no .drv. */
static bool may_ask(const char *drv) {
  static char text[64 * 1024];
  struct stat status;
  int file = open_file(drv, &status);
  if (file < 0) return errno != ENOENT;
  size_t kept = 0;
  for (size_t total = 0; total <= MAX_DERIVATION;) {
    ssize_t got = read(file, text + kept, sizeof text - kept);
    if (got <= 0) return got < 0;
    total += got;
    size_t length = kept + got;
    if (memmem(text, length, FEATURE, strlen(FEATURE))) return true;
    /* The word may begin in this piece and end in the next. */
    kept = length < strlen(FEATURE) ? length : strlen(FEATURE) - 1;
    memmove(text, text + length - kept, kept);
  }
  return true;
}

/* False if the build surely had no sandbox. */
static bool may_have_had_sandbox(const char *drv) {
  const char *slash = strrchr(drv, '/');
  char mark[PATH_MAX];
  struct stat status;
  int length = snprintf(mark, sizeof mark, "%s/derivations/%s", runtime, slash ? slash + 1 : drv);
  return length >= (int)sizeof mark || stat(mark, &status) == 0 || errno != ENOENT;
}

/* The linker finds in /proc how we were called. False if there is no whole answer: one has a byte 0 at its end. */
static bool ask_linker(int output) {
  static char answer[64 * 1024];
  char request[64];
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  struct timeval patience = {.tv_sec = PATIENCE};
  if (snprintf(address.sun_path, sizeof address.sun_path, "%s/hooks.sock", runtime) >= (int)sizeof address.sun_path) return false;
  int linker = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (linker < 0 || setsockopt(linker, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) ||
      setsockopt(linker, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ||
      connect(linker, (struct sockaddr *)&address, sizeof address))
    return false;
  int asked = snprintf(request, sizeof request, WHEN "-build-hook %d\n", getpid());
  if (send(linker, request, asked, MSG_NOSIGNAL) != asked) return false;
  size_t length = 0;
  ssize_t got;
  while ((got = recv(linker, answer + length, sizeof answer - length, 0)) > 0) length += got;
  if (got < 0 || length == 0 || answer[length - 1]) return false;
  for (char *rest = answer, *end = answer + length - 1; rest < end; rest += got)
    if ((got = write(output, rest, end - rest)) <= 0) return false;
  return true;
}

/* Runs the next hook, if there is one. Does not return, unless it cannot be run: the shell says why. */
static void run_next(char **argv) {
  char *alone[] = {(char *)next, NULL};
  if (!*next) exit(0);
  argv[0] = (char *)next;
  /* The post-build hook has no arguments. */
  execv(next, !strcmp(WHEN, "pre") ? argv : alone);
}

/* Does not return, unless it cannot be run. A script finds itself by the name that it was run by, and so does this. */
static void run_script(char **argv) {
  const char *self = (const char *)getauxval(AT_EXECFN);
  const char *slash = strrchr(self, '/');
  char script[PATH_MAX];
  int folder = slash ? slash + 1 - self : 0;
  if (snprintf(script, sizeof script, "%.*s" WHEN "-build-hook.sh", folder, self) < (int)sizeof script) execv(script, argv);
  dprintf(STDERR_FILENO, "nix-broker: cannot run %s: %s\n", script, strerror(errno));
}

int main(int argc, char **argv) {
  const bool is_pre = !strcmp(WHEN, "pre");
  const char *built = getenv("DRV_PATH");
  /* The shell looks for a bare name in PATH. */
  if (read_config() && (!*next || strchr(next, '/'))) {
    bool concerns_us = is_pre ? argc > 1 && may_ask(argv[1]) : may_have_had_sandbox(built ? built : "");
    if (!concerns_us || ask_linker(is_pre ? STDOUT_FILENO : STDERR_FILENO)) run_next(argv);
  }
  run_script(argv);
  /* A build that asked for a sandbox and got none could use a store of its own. After a build, the linker does the work. */
  return is_pre ? 1 : 0;
}
