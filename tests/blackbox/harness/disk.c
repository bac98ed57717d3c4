/* A disk that fails on demand, for one process: preloaded, it stands between the program and the system's calls that
 * write. Only files below DISK_DIR are concerned. What to do is said by DISK_CONTROL, a file mapped by both sides. */

#undef _FORTIFY_SOURCE
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WELL = 0, ALL_FAIL = 1, NTH_FAILS = 2, NTH_TEARS = 3 };

struct control {
    int64_t mode;
    int64_t countdown;
    int64_t error;
    int64_t calls;
};

static struct control *control;
static const char *dir;
static size_t dir_length;

/* The descriptor on which this thread wrote half of what it was told to: the rest fails. */
static __thread int torn = -1;

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

#define REAL(name, ...) ((__typeof__(&name))({ static void *f; if (!f) f = real(#name); f; }))(__VA_ARGS__)

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("DISK_CONTROL");
    dir = getenv("DISK_DIR");
    if (!file || !dir)
        return;
    dir_length = strlen(dir);
    int fd = REAL(open, file, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        abort();
    void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        abort();
    control = map;
    close(fd);
}

static int is_below(const char *path)
{
    return strncmp(path, dir, dir_length) == 0 && (path[dir_length] == '/' || path[dir_length] == '\0');
}

static int is_ours(int fd)
{
    char link[40], path[PATH_MAX];
    if (!control || fd < 0)
        return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0)
        return 0;
    path[length] = '\0';
    return is_below(path);
}

/* Whether the file that open would make is ours. Its directory is there, the file perhaps not. */
static int would_be_ours(int at, const char *name)
{
    char parent[2 * PATH_MAX], resolved[PATH_MAX];
    if (!control)
        return 0;
    int before = errno, length;
    if (name[0] == '/' || at == AT_FDCWD)
        length = snprintf(parent, sizeof parent, "%s%s", name[0] == '/' ? "" : "./", name);
    else
        length = snprintf(parent, sizeof parent, "/proc/self/fd/%d/%s", at, name);
    if (length < 0 || (size_t)length >= sizeof parent)
        return 0;
    strrchr(parent, '/')[1] = '\0';
    const char *found = realpath(parent, resolved);
    errno = before;
    return found && is_below(found);
}

/* Counts a call. Returns the mode in which it fails, or WELL. */
static int64_t verdict(void)
{
    __atomic_add_fetch(&control->calls, 1, __ATOMIC_SEQ_CST);
    int64_t mode = __atomic_load_n(&control->mode, __ATOMIC_SEQ_CST);
    if (mode != NTH_FAILS && mode != NTH_TEARS)
        return mode;
    if (__atomic_sub_fetch(&control->countdown, 1, __ATOMIC_SEQ_CST) != 0)
        return WELL;
    __atomic_store_n(&control->mode, WELL, __ATOMIC_SEQ_CST);
    return mode;
}

static int fail(void)
{
    errno = (int)__atomic_load_n(&control->error, __ATOMIC_SEQ_CST);
    return -1;
}

/* What a write of that many bytes is to do: fail (-1), or write so many of them. */
static ssize_t allowed(int fd, size_t length)
{
    if (torn == fd) {
        torn = -1;
        __atomic_add_fetch(&control->calls, 1, __ATOMIC_SEQ_CST);
        return fail();
    }
    int64_t mode = verdict();
    if (mode == WELL)
        return (ssize_t)length;
    if (mode != NTH_TEARS || length < 2)
        return fail();
    torn = fd;
    return (ssize_t)(length / 2);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    ssize_t n = is_ours(fd) ? allowed(fd, length) : (ssize_t)length;
    return n < 0 ? n : REAL(write, fd, bytes, (size_t)n);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
    ssize_t n = is_ours(fd) ? allowed(fd, length) : (ssize_t)length;
    return n < 0 ? n : REAL(pwrite, fd, bytes, (size_t)n, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at)
{
    ssize_t n = is_ours(fd) ? allowed(fd, length) : (ssize_t)length;
    return n < 0 ? n : REAL(pwrite64, fd, bytes, (size_t)n, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    size_t length = 0;
    if (!is_ours(fd))
        return REAL(writev, fd, parts, count);
    for (int i = 0; i < count; i++)
        length += parts[i].iov_len;
    ssize_t n = allowed(fd, length);
    if (n < 0)
        return n;
    if ((size_t)n == length)
        return REAL(writev, fd, parts, count);
    /* Half of it: what of that lies in the first part that has any bytes. */
    while (parts->iov_len == 0)
        parts++;
    return REAL(write, fd, parts->iov_base, parts->iov_len < (size_t)n ? parts->iov_len : (size_t)n);
}

int fsync(int fd)
{
    return is_ours(fd) && verdict() != WELL ? fail() : REAL(fsync, fd);
}

int fdatasync(int fd)
{
    return is_ours(fd) && verdict() != WELL ? fail() : REAL(fdatasync, fd);
}

int ftruncate(int fd, off_t length)
{
    return is_ours(fd) && verdict() != WELL ? fail() : REAL(ftruncate, fd, length);
}

int ftruncate64(int fd, off64_t length)
{
    return is_ours(fd) && verdict() != WELL ? fail() : REAL(ftruncate64, fd, length);
}

/* The mode is the argument after the flags, there only if a file may be made. */
#define CREATION_MODE(flags)                                     \
    mode_t mode = 0;                                             \
    if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list rest;                                            \
        va_start(rest, flags);                                   \
        mode = va_arg(rest, mode_t);                             \
        va_end(rest);                                            \
    }

#define FAILS(at, name, flags) ((flags) & O_CREAT && would_be_ours(at, name) && verdict() != WELL)

int open(const char *name, int flags, ...)
{
    CREATION_MODE(flags)
    return FAILS(AT_FDCWD, name, flags) ? fail() : REAL(open, name, flags, mode);
}

int open64(const char *name, int flags, ...)
{
    CREATION_MODE(flags)
    return FAILS(AT_FDCWD, name, flags) ? fail() : REAL(open64, name, flags, mode);
}

int openat(int at, const char *name, int flags, ...)
{
    CREATION_MODE(flags)
    return FAILS(at, name, flags) ? fail() : REAL(openat, at, name, flags, mode);
}

int openat64(int at, const char *name, int flags, ...)
{
    CREATION_MODE(flags)
    return FAILS(at, name, flags) ? fail() : REAL(openat64, at, name, flags, mode);
}
