/*
 * pre-build-hook and post-build-hook, where nix-broker was built with a C compiler. Nix runs both for every build of the
 * machine, and hardly any of them concerns us: this looks, at the price of a program's start, and runs the next hook. A build
 * that may concern us, and whatever is unusual, is left to the script beside it, pre-build-hook.sh or post-build-hook.sh.
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
#include <sys/stat.h>
#include <unistd.h>

#define FEATURE "nix-broker"
#define NEXT "next_" WHEN "_build_hook="
#define RUNTIME "runtime_dir="
#define MAX_DERIVATION (16 * 1024 * 1024)

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
  if (read_config() && !(is_pre ? argc > 1 && may_ask(argv[1]) : may_have_had_sandbox(built ? built : ""))) {
    if (!*next) return 0;
    /* The post-build hook has no arguments. The shell looks for a bare name in PATH, and says why a program cannot be run. */
    char *alone[] = {(char *)next, NULL};
    argv[0] = (char *)next;
    if (strchr(next, '/')) execv(next, is_pre ? argv : alone);
  }
  run_script(argv);
  /* A build that asked for a sandbox and got none could use a store of its own. After a build, the linker does the work. */
  return is_pre ? 1 : 0;
}
