/* Counts the calls by which a process changes the disk or speaks to the network, and strikes at one of them.
 *
 * Loaded with LD_PRELOAD. Unlike the counters of strace, which count each system call of each thread by itself, there
 * is one counter for the whole process, so every call has a number and every number can be struck.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum strike { NOTHING, KILL, FAIL_ONE, FAIL_FROM };
enum kind { DISK = 1, NET = 2 };

static atomic_long count;
static long target;
static int strike = NOTHING, error_number, kinds = DISK | NET, bursts;
static atomic_int writing;

/* Starts to count, at 0; the call with number `at` (from 1) is struck. With `in_bursts`, writes without another call
 * between them count once: a kill between them leaves what a kill before them leaves, since nothing was committed. */
void campaign_arm(long at, int how, int error, int which, int in_bursts) {
    bursts = in_bursts;
    atomic_store(&writing, 0);
    target = at;
    strike = how;
    error_number = error;
    kinds = which;
    atomic_store(&count, 0);
}

long campaign_count(void) { return atomic_load(&count); }

static int struck(enum kind kind, const char *name) {
    if (strike == NOTHING || !(kind & kinds)) return 0;
    int writes = kind == DISK && (strstr(name, "write") || strstr(name, "truncate"));
    if (atomic_exchange(&writing, writes) && writes && bursts) return 0;
    long number = atomic_fetch_add(&count, 1) + 1;
    if (number == target && strike == KILL) {
        kill(getpid(), SIGKILL);
        pause();
    }
    if ((number == target && strike == FAIL_ONE) || (number >= target && strike == FAIL_FROM)) {
        errno = error_number;
        return 1;
    }
    return 0;
}

static int is_file(int fd) {
    struct stat status;
    int before = errno;
    int is = fd > 2 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    errno = before;
    return is;
}

static int is_inet(int fd) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    int before = errno;
    int is = getsockname(fd, (struct sockaddr *)&address, &length) == 0 && address.ss_family != AF_UNIX;
    errno = before;
    return is;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FORWARD(kind, condition, type, name, parameters, arguments)   \
    type name parameters {                                           \
        static __typeof__(&name) real;                               \
        if (!real) real = REAL(name);                                \
        if (strike != NOTHING && (condition) && struck(kind, #name)) return -1; \
        return real arguments;                                       \
    }

FORWARD(DISK, 1, int, fsync, (int fd), (fd))
FORWARD(DISK, 1, int, fdatasync, (int fd), (fd))
FORWARD(DISK, is_file(fd), ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
FORWARD(DISK, is_file(fd), ssize_t, writev, (int fd, const struct iovec *parts, int number), (fd, parts, number))
FORWARD(DISK, 1, ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
FORWARD(DISK, 1, ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
FORWARD(DISK, 1, int, ftruncate, (int fd, off_t size), (fd, size))
FORWARD(DISK, 1, int, ftruncate64, (int fd, off64_t size), (fd, size))
FORWARD(DISK, 1, int, rename, (const char *old, const char *new), (old, new))
FORWARD(DISK, 1, int, renameat, (int a, const char *old, int b, const char *new), (a, old, b, new))
FORWARD(DISK, 1, int, link, (const char *old, const char *new), (old, new))
FORWARD(DISK, 1, int, linkat, (int a, const char *old, int b, const char *new, int flags), (a, old, b, new, flags))
FORWARD(DISK, 1, int, unlink, (const char *path), (path))
FORWARD(DISK, 1, int, unlinkat, (int fd, const char *path, int flags), (fd, path, flags))
FORWARD(DISK, 1, int, mkdir, (const char *path, mode_t mode), (path, mode))
FORWARD(DISK, 1, int, rmdir, (const char *path), (path))
FORWARD(NET, is_inet(fd), int, connect, (int fd, const struct sockaddr *to, socklen_t length), (fd, to, length))
FORWARD(NET, is_inet(fd), ssize_t, send, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags))
FORWARD(NET, is_inet(fd), ssize_t, sendto,
        (int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length),
        (fd, data, size, flags, to, length))
FORWARD(NET, is_inet(fd), ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
