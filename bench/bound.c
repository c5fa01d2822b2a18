// The lower bound of a container's life: what the kernel must be asked to do for the configuration of `runc spec` (with
// a cgroup namespace and a read-only root), and nothing else: no JSON, no generality, no error but "stop".
//
//   bound --root DIR --cgroup DIR create|run --bundle DIR ID       create: `sleep`, run: `true`, of BUNDLE/rootfs
//   bound --root DIR --cgroup DIR start|delete ID
//   bound time PROGRAM ARGUMENT...
//
// What is asked for safety's sake is counted too: every mount target is opened beneath the root, a process is known by
// its pid and its start time, devices are filtered. One thing is not: keeping the container away from the runtime's own
// executable, for which no single way exists.
//
// `time` measures one program from a parent of next to no memory (a child's ru_maxrss begins with its parent's) and
// prints "wall-ns cpu-us maxrss-KiB exit-status". The program's standard input and output are /dev/null.
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long check(long result, const char *what) {
    if (result < 0) err(1, "%s", what);
    return result;
}
#define DO(call) check((long)(call), #call)

static const char *state_root, *cgroup_parent;

// ---- state: <root>/<id>/{state,fifo}

struct state {
    pid_t pid;
    char start[32];
};

static int state_dir(const char *id) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", state_root, id);
    return DO(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
}

static void cgroup_path(char *path, size_t size, const char *id) { snprintf(path, size, "%s/%s", cgroup_parent, id); }

// The 22nd field of /proc/PID/stat: a pid may come again, but not with the same start time.
static void start_time(pid_t pid, char out[32]) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = DO(open(path, O_RDONLY | O_CLOEXEC));
    text[DO(read(fd, text, sizeof text - 1))] = 0;
    close(fd);
    char *field = strrchr(text, ')');
    for (int i = 2; field && i < 22; i++) field = strchr(field + 1, ' ');
    if (!field) errx(1, "%s: not understood", path);
    snprintf(out, 32, "%.*s", (int)strcspn(field + 1, " "), field + 1);
}

static void save(int dir, const struct state *s) {
    int fd = DO(openat(dir, "state.new", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    DO(write(fd, s, sizeof *s));
    close(fd);
    DO(renameat(dir, "state.new", dir, "state"));
}

static struct state load(int dir) {
    struct state s;
    char now[32];
    int fd = DO(openat(dir, "state", O_RDONLY | O_CLOEXEC));
    if (DO(read(fd, &s, sizeof s)) != sizeof s) errx(1, "short state");
    close(fd);
    start_time(s.pid, now);
    if (strcmp(now, s.start)) errx(1, "the process is another");
    return s;
}

// ---- the container's side

static int root; // the rootfs, O_PATH

static int beneath(const char *path) {
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    return syscall(SYS_openat2, root, path, &how, sizeof how);
}

static char *by_fd(int fd) {
    static char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return path;
}

static void mount_in(const char *type, const char *target, unsigned long flags, const char *data) {
    int fd = DO(beneath(target));
    DO(mount(type, by_fd(fd), type, flags, data));
    close(fd);
}

static void mask(const char *target) {
    struct stat st;
    int fd = beneath(target);
    if (fd < 0 && errno == ENOENT) return;
    DO(fd);
    DO(fstat(fd, &st));
    if (S_ISDIR(st.st_mode)) DO(mount("tmpfs", by_fd(fd), "tmpfs", MS_RDONLY, NULL));
    else DO(mount("/dev/null", by_fd(fd), NULL, MS_BIND, NULL));
    close(fd);
}

static void read_only(const char *target) {
    int fd = beneath(target);
    if (fd < 0 && errno == ENOENT) return;
    DO(fd);
    int tree = DO(syscall(SYS_open_tree, fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    DO(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr));
    DO(syscall(SYS_move_mount, tree, "", fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
    close(tree);
    close(fd);
}

static void file_system(const char *bundle) {
    static const struct { const char *name; int minor, major; } devices[] = {
        {"null", 3, 1}, {"zero", 5, 1}, {"full", 7, 1}, {"random", 8, 1}, {"urandom", 9, 1}, {"tty", 0, 5},
    };
    static const char *links[][2] = {
        {"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
        {"/proc/self/fd/2", "stderr"}, {"/proc/kcore", "core"}, {"pts/ptmx", "ptmx"},
    };
    static const char *masked[] = {
        "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
        "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
    };
    static const char *guarded[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    const unsigned long safe = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    char rootfs[4096];
    snprintf(rootfs, sizeof rootfs, "%s/rootfs", bundle);

    DO(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL));
    DO(mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL));
    root = DO(open(rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC));

    umask(0);
    mount_in("proc", "/proc", 0, NULL);
    mount_in("tmpfs", "/dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    int dev = DO(beneath("/dev"));
    DO(mkdirat(dev, "pts", 0755));
    DO(mkdirat(dev, "shm", 0755));
    DO(mkdirat(dev, "mqueue", 0755));
    mount_in("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    mount_in("tmpfs", "/dev/shm", safe, "mode=1777,size=65536k");
    mount_in("mqueue", "/dev/mqueue", safe, NULL);
    mount_in("sysfs", "/sys", safe | MS_RDONLY, NULL);
    mount_in("cgroup2", "/sys/fs/cgroup", safe | MS_RELATIME | MS_RDONLY, NULL);
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        DO(mknodat(dev, devices[i].name, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)));
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) DO(symlinkat(links[i][0], dev, links[i][1]));
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) mask(masked[i]);
    for (size_t i = 0; i < sizeof guarded / sizeof *guarded; i++) read_only(guarded[i]);
    umask(022);

    DO(fchdir(root));
    DO(syscall(SYS_pivot_root, ".", "."));
    DO(umount2(".", MNT_DETACH));
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    DO(syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &attr, sizeof attr));
    DO(chdir("/"));
}

static void loopback_up(void) {
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = DO(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    DO(ioctl(fd, SIOCSIFFLAGS, &lo));
    close(fd);
}

static void privileges(void) {
    const uint32_t keep = 1 << CAP_AUDIT_WRITE | 1 << CAP_KILL | 1 << CAP_NET_BIND_SERVICE;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[2] = {{keep, keep, keep}};
    struct rlimit files = {1024, 1024};
    DO(setrlimit(RLIMIT_NOFILE, &files));
    for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
        if (cap > 31 || !(keep >> cap & 1)) DO(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0));
    DO(syscall(SYS_setgroups, 0, NULL));
    DO(syscall(SYS_setresgid, 0, 0, 0));
    DO(syscall(SYS_setresuid, 0, 0, 0));
    DO(syscall(SYS_capset, &header, caps));
    for (int cap = 0; cap < 32; cap++)
        if (keep >> cap & 1) DO(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0));
    DO(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

static _Noreturn void init(const char *bundle, int fifo, int ready, char **argv) {
    static char *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", NULL};
    char byte = 0;
    DO(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
    DO(setsid());
    DO(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "_ses.bound"));
    DO(unshare(CLONE_NEWCGROUP)); // after the clone into the cgroup, so that it is the root of the namespace
    file_system(bundle);
    DO(sethostname("bound", 5));
    loopback_up();
    DO(syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC));
    privileges();
    DO(write(ready, &byte, 1));
    close(ready);
    DO(read(fifo, &byte, 1));
    execve(argv[0], argv, env);
    err(127, "%s", argv[0]);
}

// ---- the verbs

// Allows what the OCI wants allowed everywhere: making any node, and opening the devices above and pseudo-terminals.
static void filter_devices(int cgroup) {
#define INSN(c, d, s, o, i) {.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)}
#define LOAD(reg, field) INSN(BPF_LDX | BPF_MEM | BPF_W, reg, 1, offsetof(struct bpf_cgroup_dev_ctx, field), 0)
#define SKIP_UNLESS(reg, value, n) INSN(BPF_JMP | BPF_JNE | BPF_K, reg, 0, n, value)
#define RETURN(v) INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, v), INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define ALLOW(major, minor) SKIP_UNLESS(4, major, 3), SKIP_UNLESS(5, minor, 2), RETURN(1)
    const struct bpf_insn program[] = {
        LOAD(2, access_type),
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, 3, 2, 0, 0),
        INSN(BPF_ALU64 | BPF_RSH | BPF_K, 3, 0, 0, 16),
        LOAD(4, major),
        LOAD(5, minor),
        SKIP_UNLESS(3, BPF_DEVCG_ACC_MKNOD, 2), RETURN(1),
        INSN(BPF_ALU64 | BPF_AND | BPF_K, 2, 0, 0, 0xffff),
        SKIP_UNLESS(2, BPF_DEVCG_DEV_CHAR, 31),
        ALLOW(1, 3), ALLOW(1, 5), ALLOW(1, 7), ALLOW(1, 8), ALLOW(1, 9), ALLOW(5, 0), ALLOW(5, 2),
        SKIP_UNLESS(4, 136, 2), RETURN(1),
        RETURN(0),
    };
    union bpf_attr load = {
        .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
        .insns = (uintptr_t)program,
        .insn_cnt = sizeof program / sizeof *program,
        .license = (uintptr_t)"GPL",
    };
    int fd = DO(syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load));
    union bpf_attr attach = {
        .target_fd = cgroup, .attach_bpf_fd = fd, .attach_type = BPF_CGROUP_DEVICE, .attach_flags = BPF_F_ALLOW_MULTI};
    DO(syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach));
    close(fd);
}

static pid_t create(const char *bundle, const char *id, char **argv) {
    char path[4096], config[16384], byte;
    int ready[2];
    struct state s;

    snprintf(path, sizeof path, "%s/config.json", bundle);
    int fd = DO(open(path, O_RDONLY | O_CLOEXEC));
    DO(read(fd, config, sizeof config));
    close(fd);

    snprintf(path, sizeof path, "%s/%s", state_root, id);
    DO(mkdir(path, 0700));
    int dir = state_dir(id);
    DO(mkfifoat(dir, "fifo", 0600));
    int fifo = DO(openat(dir, "fifo", O_RDWR | O_CLOEXEC));
    cgroup_path(path, sizeof path, id);
    DO(mkdir(path, 0755));
    int cgroup = DO(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    filter_devices(cgroup);

    DO(pipe2(ready, O_CLOEXEC));
    struct clone_args clone = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_INTO_CGROUP,
        .exit_signal = SIGCHLD,
        .cgroup = cgroup,
    };
    s.pid = DO(syscall(SYS_clone3, &clone, sizeof clone));
    if (!s.pid) init(bundle, fifo, ready[1], argv);
    close(ready[1]);
    if (DO(read(ready[0], &byte, 1)) != 1) errx(1, "init failed");
    start_time(s.pid, s.start);
    save(dir, &s);
    return s.pid;
}

static void start(const char *id) {
    int dir = state_dir(id);
    load(dir);
    int fifo = DO(openat(dir, "fifo", O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    DO(write(fifo, "", 1));
    DO(unlinkat(dir, "fifo", 0));
}

static void remove_all(const char *id) {
    char path[4096], events[4128], text[256];
    cgroup_path(path, sizeof path, id);
    for (int tries = 0; rmdir(path); tries++) {
        if (errno != EBUSY) err(1, "rmdir %s", path);
        // A dead task may leave its cgroup a little after its parent and its pidfd have heard. cgroup.events tells, but
        // at most once in 10 ms, so it is asked only in the end.
        if (tries < 1000) {
            sched_yield();
            continue;
        }
        snprintf(events, sizeof events, "%s/cgroup.events", path);
        struct pollfd changed = {.fd = DO(open(events, O_RDONLY | O_CLOEXEC)), .events = POLLPRI};
        text[DO(read(changed.fd, text, sizeof text - 1))] = 0;
        if (strstr(text, "populated 1")) DO(poll(&changed, 1, -1));
        close(changed.fd);
    }
    int dir = state_dir(id);
    unlinkat(dir, "fifo", 0);
    DO(unlinkat(dir, "state", 0));
    snprintf(path, sizeof path, "%s/%s", state_root, id);
    DO(rmdir(path));
}

static void delete(const char *id) {
    struct state s = load(state_dir(id));
    struct pollfd gone = {.fd = DO(syscall(SYS_pidfd_open, s.pid, 0)), .events = POLLIN};
    DO(syscall(SYS_pidfd_send_signal, gone.fd, SIGKILL, NULL, 0));
    DO(poll(&gone, 1, -1));
    remove_all(id);
}

static int run(const char *bundle, const char *id, char **argv) {
    int status;
    pid_t pid = create(bundle, id, argv);
    start(id);
    DO(waitpid(pid, &status, 0));
    remove_all(id);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int time_program(char **argv) {
    struct timespec before, after;
    struct rusage used;
    pid_t pid;
    int status, out = DO(fcntl(1, F_DUPFD_CLOEXEC, 3)), null = DO(open("/dev/null", O_RDWR | O_CLOEXEC));
    DO(dup2(null, 0));
    DO(dup2(null, 1));
    clock_gettime(CLOCK_MONOTONIC, &before);
    errno = posix_spawn(&pid, argv[0], NULL, NULL, argv, environ);
    if (errno) err(1, "%s", argv[0]);
    DO(wait4(pid, &status, 0, &used));
    clock_gettime(CLOCK_MONOTONIC, &after);
    dprintf(out, "%ld %ld %ld %d\n", (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec,
            (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 + used.ru_utime.tv_usec + used.ru_stime.tv_usec,
            used.ru_maxrss, status);
    return 0;
}

int main(int argc, char **argv) {
    static char *sleep_args[] = {"/bin/sleep", "1000", NULL}, *true_args[] = {"/bin/true", NULL};
    const char *bundle = NULL, *verb = NULL, *id = NULL;
    if (argc > 2 && !strcmp(argv[1], "time")) return time_program(argv + 2);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--root")) state_root = argv[++i];
        else if (!strcmp(argv[i], "--cgroup")) cgroup_parent = argv[++i];
        else if (!strcmp(argv[i], "--bundle")) bundle = argv[++i];
        else if (argv[i][0] == '-') continue; // --force
        else if (!verb) verb = argv[i];
        else id = argv[i];
    }
    if (!state_root || !cgroup_parent || !verb || !id) errx(2, "usage: see bound.c");
    if (!strcmp(verb, "create") && bundle) create(bundle, id, sleep_args);
    else if (!strcmp(verb, "run") && bundle) return run(bundle, id, true_args);
    else if (!strcmp(verb, "start")) start(id);
    else if (!strcmp(verb, "delete")) delete(id);
    else errx(2, "usage: see bound.c");
    return 0;
}
