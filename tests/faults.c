/* Makes the Nth operation on files below a directory fail, or kills the process before it. Preloaded by faulty.py.

   Counted are open (of files to be written), write, fsync, link, rename and mkdir. fault_arm(0, ...) only counts. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { OFF, ONCE, FOR_GOOD, KILL };

static char root[PATH_MAX];
static long nth, seen;
static int mode = OFF;

void fault_arm(const char *below, long n, int how) {
    strncpy(root, below, sizeof root - 1);
    nth = n, seen = 0, mode = how;
}

long fault_seen(void) { return seen; }

/* Whether this operation is to fail. */
static int fails(const char *path) {
    if (!root[0] || !path || strncmp(path, root, strlen(root))) return 0;
    seen++;
    if (mode == KILL && seen == nth) kill(getpid(), SIGKILL);
    return (mode == ONCE && seen == nth) || (mode == FOR_GOOD && seen >= nth);
}

static int fails_fd(int fd) {
    char link[64], path[PATH_MAX];
    if (!root[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return fails(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(code) do { errno = code; return -1; } while (0)

#define OPENER(name)                                                      \
    int name(const char *path, int flags, ...) {                          \
        va_list more;                                                     \
        va_start(more, flags);                                            \
        mode_t bits = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                     \
        if ((flags & O_ACCMODE) != O_RDONLY && fails(path)) FAIL(EMFILE); \
        return REAL(name)(path, flags, bits);                             \
    }
OPENER(open)
OPENER(open64)

ssize_t write(int fd, const void *data, size_t n) {
    if (fails_fd(fd)) FAIL(ENOSPC);
    return REAL(write)(fd, data, n);
}

int fsync(int fd) {
    if (fails_fd(fd)) FAIL(EIO);
    return REAL(fsync)(fd);
}

int link(const char *from, const char *to) {
    if (fails(to)) FAIL(EIO);
    return REAL(link)(from, to);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    if (fails(to)) FAIL(EIO);
    return REAL(linkat)(a, from, b, to, flags);
}

int rename(const char *from, const char *to) {
    if (fails(to)) FAIL(EIO);
    return REAL(rename)(from, to);
}

int mkdir(const char *path, mode_t bits) {
    if (fails(path)) FAIL(ENOSPC);
    return REAL(mkdir)(path, bits);
}
