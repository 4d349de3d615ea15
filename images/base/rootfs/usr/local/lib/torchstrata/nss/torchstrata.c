/* libnss_torchstrata.so.2: a name for the user that a container runs as, whatever its uid (glibc manual, "NSS Modules Interface").

   A process is told its own name and nothing else: `dev`, with the uid and gid that the kernel knows. No file is read but /etc/passwd.
   Root is told nothing, nor is a program that a setuid bit has raised, so that privileged programs believe root's files alone. */

#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define NAME "dev"
#define HOME "/home/dev"
#define SHELL "/bin/bash"
#define SSHD "/usr/sbin/sshd"
#define SESSION "/usr/local/bin/torchstrata-session" /* gives a session of sshd the container's environment */

/* Whether this process may be told its name: it is not root, and has no rights that a file lends. */
static int is_ordinary(void) {
    return getuid() != 0 && getuid() == geteuid() && getgid() == getegid() && !getauxval(AT_SECURE);
}

/* Whether /etc/passwd has a name of its own for a uid, which then counts. */
static int has_other_name(uid_t uid) {
    char buffer[4096];
    struct passwd entry, *found;
    int other = 0;
    FILE *file = fopen("/etc/passwd", "re");
    if (file == NULL) return 0;
    for (int status = 0; !other && (status == 0 || status == ERANGE);) {
        status = fgetpwent_r(file, &entry, buffer, sizeof buffer, &found);
        other = status == 0 && entry.pw_uid == uid && strcmp(entry.pw_name, NAME) != 0;
    }
    fclose(file);
    return other;
}

/* The home of this process: its HOME, unless that is no path or root's. */
static const char *home(void) {
    const char *own = secure_getenv("HOME");
    return own == NULL || own[0] != '/' || own[1] == '\0' || strcmp(own, "/root") == 0 ? HOME : own;
}

/* Copy a string into what is left of a buffer; NULL where it does not fit. */
static char *put(const char *text, char **buffer, size_t *left) {
    size_t length = strlen(text) + 1;
    if (length > *left) return NULL;
    char *copy = memcpy(*buffer, text, length);
    *buffer += length;
    *left -= length;
    return copy;
}

static enum nss_status too_small(int *error) {
    *error = ERANGE;
    return NSS_STATUS_TRYAGAIN;
}

static enum nss_status myself(struct passwd *entry, char *buffer, size_t left, int *error) {
    entry->pw_uid = getuid();
    entry->pw_gid = getgid();
    entry->pw_name = put(NAME, &buffer, &left);
    entry->pw_passwd = put("*", &buffer, &left);
    entry->pw_gecos = put(NAME, &buffer, &left);
    entry->pw_dir = put(home(), &buffer, &left);
    entry->pw_shell = put(access(SSHD, X_OK) == 0 ? SESSION : SHELL, &buffer, &left);
    int fits = entry->pw_name && entry->pw_passwd && entry->pw_gecos && entry->pw_dir && entry->pw_shell;
    return fits ? NSS_STATUS_SUCCESS : too_small(error);
}

enum nss_status _nss_torchstrata_getpwnam_r(const char *name, struct passwd *entry, char *buffer, size_t size, int *error) {
    return is_ordinary() && strcmp(name, NAME) == 0 ? myself(entry, buffer, size, error) : NSS_STATUS_NOTFOUND;
}

enum nss_status _nss_torchstrata_getpwuid_r(uid_t uid, struct passwd *entry, char *buffer, size_t size, int *error) {
    return is_ordinary() && uid == getuid() && !has_other_name(uid) ? myself(entry, buffer, size, error) : NSS_STATUS_NOTFOUND;
}

static enum nss_status my_group(struct group *entry, char *buffer, size_t left, int *error) {
    size_t gap = -(size_t)buffer % sizeof(char *); /* gr_mem, an empty list of members, must be aligned */
    if (left < gap + sizeof(char *)) return too_small(error);
    entry->gr_mem = (char **)(buffer + gap);
    entry->gr_mem[0] = NULL;
    buffer += gap + sizeof(char *);
    left -= gap + sizeof(char *);
    entry->gr_gid = getgid();
    entry->gr_name = put(NAME, &buffer, &left);
    entry->gr_passwd = put("*", &buffer, &left);
    return entry->gr_name && entry->gr_passwd ? NSS_STATUS_SUCCESS : too_small(error);
}

enum nss_status _nss_torchstrata_getgrnam_r(const char *name, struct group *entry, char *buffer, size_t size, int *error) {
    return is_ordinary() && strcmp(name, NAME) == 0 ? my_group(entry, buffer, size, error) : NSS_STATUS_NOTFOUND;
}

enum nss_status _nss_torchstrata_getgrgid_r(gid_t gid, struct group *entry, char *buffer, size_t size, int *error) {
    return is_ordinary() && gid == getgid() ? my_group(entry, buffer, size, error) : NSS_STATUS_NOTFOUND;
}
