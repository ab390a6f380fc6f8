/* LD_PRELOAD: a file system below $ODD_FILE_SYSTEM without hard and symbolic links, flock, fsync, permissions and times,
   which renames to free names only. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_odd(const char *path) {
    const char *place = getenv("ODD_FILE_SYSTEM");
    return place && path && strncmp(path, place, strlen(place)) == 0;
}

static int is_odd_file(int descriptor) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_odd(path);
}

#define REAL(name, ...) ((int (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))
#define REFUSE(number) do { errno = number; return -1; } while (0)

int link(const char *old, const char *new) {
    if (is_odd(new)) REFUSE(EOPNOTSUPP);
    return REAL(link, const char *, const char *)(old, new);
}
int symlink(const char *old, const char *new) {
    if (is_odd(new)) REFUSE(EPERM);
    return REAL(symlink, const char *, const char *)(old, new);
}
int flock(int file, int operation) {
    if (is_odd_file(file)) REFUSE(ENOLCK);
    return REAL(flock, int, int)(file, operation);
}
int fsync(int file) {
    if (is_odd_file(file)) REFUSE(EINVAL);
    return REAL(fsync, int)(file);
}
int chmod(const char *path, mode_t mode) {
    if (is_odd(path)) REFUSE(EPERM);
    return REAL(chmod, const char *, mode_t)(path, mode);
}
int fchmod(int file, mode_t mode) {
    if (is_odd_file(file)) REFUSE(EPERM);
    return REAL(fchmod, int, mode_t)(file, mode);
}
int fchmodat(int folder, const char *path, mode_t mode, int flags) {
    if (is_odd(path)) REFUSE(EPERM);
    return REAL(fchmodat, int, const char *, mode_t, int)(folder, path, mode, flags);
}
int utimensat(int folder, const char *path, const struct timespec times[2], int flags) {
    if (is_odd(path)) REFUSE(EPERM);
    return REAL(utimensat, int, const char *, const struct timespec *, int)(folder, path, times, flags);
}
int futimens(int file, const struct timespec times[2]) {
    if (is_odd_file(file)) REFUSE(EPERM);
    return REAL(futimens, int, const struct timespec *)(file, times);
}
int rename(const char *old, const char *new) {
    if (is_odd(new) && access(new, F_OK) == 0) REFUSE(EEXIST);
    return REAL(rename, const char *, const char *)(old, new);
}
int renameat(int from, const char *old, int to, const char *new) {
    if (is_odd(new) && access(new, F_OK) == 0) REFUSE(EEXIST);
    return REAL(renameat, int, const char *, int, const char *)(from, old, to, new);
}
