// SPDX-License-Identifier: GPL-2.0-only
/*
 * The only process of a guest whose memory is to be dumped: it uses memory in every way that it can, asks the kernel
 * what it knows about its pages until nothing moves any more, and stops the machine (a write to pvpanic's port,
 * which no driver sees).  The host dumps it then.  When the machine goes on, the answers go out by a port that no
 * driver knows either, so that what was asked is true of the dump.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PVPANIC = 0x505, DEBUGCON = 0xe9, PAGE = 4096, PASSES = 40 };

struct truth {
	const char *path;
	int again; /* asked anew in every pass, and has to stay the same */
	int fd;
	char *data;
	size_t size, room;
	int moved; /* the last pass in which it was not what it had been */
};

/* In this order; the last ones are the ones that reading the others could change. */
static struct truth truths[] = {
	{ "/proc/version", 0 },	    { "/proc/cmdline", 0 },    { "/proc/iomem", 0 },	 { "/proc/kallsyms", 0 },
	{ "/proc/modules", 0 },	    { "/proc/meminfo", 0 },    { "/proc/vmstat", 0 },	 { "/proc/zoneinfo", 0 },
	{ "/proc/pagetypeinfo", 1 }, { "/proc/kpagecount", 1 }, { "/proc/kpageflags", 1 }, { "/proc/buddyinfo", 1 },
};
enum { TRUTHS = sizeof(truths) / sizeof(*truths) };

static void say(const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
}

static uint64_t state = 88172645463325252ull;

static uint32_t any(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 20) % below;
}

static long memfree(void)
{
	char line[256];
	long kb = 0;
	FILE *file = fopen("/proc/meminfo", "r");
	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "MemFree: %ld", &kb) == 1)
			break;
	if (file)
		fclose(file);
	return kb << 10;
}

static char *map(size_t size)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

/* One of many processes: about `size` bytes, some of it in huge pages, some locked, some given back page by page. */
static void child(int number, size_t size)
{
	state += (uint64_t)number << 32;
	char *p = map(size);
	if (!p)
		_exit(1);
	if (number % 3 == 0)
		madvise(p, size, MADV_HUGEPAGE);
	if (number % 4 == 1)
		mlock(p, size / 8);
	for (size_t i = 0; i < size; i += PAGE)
		if (number % 3 == 0 || any(8))
			p[i] = (char)number + 1;
	if (number % 2)
		for (size_t i = 0; i + 16 * PAGE < size; i += (size_t)(2 + any(60)) * PAGE)
			madvise(p + i, (size_t)(1 + any(8)) * PAGE, MADV_DONTNEED);
	if (number % 3 == 0) /* part of a huge page: it is split, or mapped by small entries */
		for (size_t i = 0; i + (2 << 20) < size; i += 8 << 20)
			madvise(p + i + (1 << 20), 64 << 10, MADV_DONTNEED);
	for (;;)
		pause();
}

static void files(size_t size)
{
	static char block[64 << 10];
	char name[64];
	memset(block, 0x5a, sizeof block);
	for (int n = 0; size > sizeof block; n++) {
		snprintf(name, sizeof name, "/tmp/%d", n);
		int fd = open(name, O_RDWR | O_CREAT, 0600);
		size_t here = (size_t)(1 + any(40)) * sizeof block;
		if (here > size)
			here = size;
		for (size_t done = 0; done < here; done += sizeof block)
			if (write(fd, block, sizeof block) < 0)
				break;
		size -= here;
		if (n % 3 == 0) { /* mapped as well */
			volatile char *p = mmap(NULL, here, PROT_READ, MAP_SHARED, fd, 0);
			for (size_t i = 0; p != MAP_FAILED && i < here; i += 2 * PAGE)
				(void)p[i];
		}
		close(fd);
		if (n % 5 == 4)
			unlink(name);
	}
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		say("%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void use_memory(void)
{
	long size = memfree();
	put("/proc/sys/vm/nr_hugepages", size > (512l << 20) ? "9" : "2");
	char *huge = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (huge != MAP_FAILED)
		huge[0] = 1;
	files((size_t)size / 8);
	for (int n = 0; n < 12; n++)
		if (fork() == 0)
			child(n, (size_t)size / 32 & ~(size_t)(PAGE - 1));
	/* Some end again, and leave holes. */
	sleep(3);
	for (int n = 0; n < 6; n++) {
		pid_t pid = fork();
		if (pid == 0)
			child(20 + n, (size_t)size / 64 & ~(size_t)(PAGE - 1));
		if (n % 2) {
			usleep(300000);
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
		}
	}
	sleep(2);
}

static void load(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		return;
	void *module = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (syscall(SYS_init_module, module, st.st_size, "") != 0)
		say("%s: %s", path, strerror(errno));
	munmap(module, (size_t)st.st_size);
	close(fd);
}

/* The whole file at `t`, again; 1 if it is what it was before. */
static int ask(struct truth *t)
{
	static char buffer[1 << 18];
	size_t done = 0;
	int same = 1;
	for (;;) {
		ssize_t got = pread(t->fd, buffer, sizeof buffer, (off_t)done);
		if (got <= 0)
			break;
		if (done + (size_t)got > t->room) {
			say("%s: more than %zu bytes", t->path, t->room);
			break;
		}
		if (memcmp(t->data + done, buffer, (size_t)got) != 0) {
			memcpy(t->data + done, buffer, (size_t)got);
			same = 0;
		}
		done += (size_t)got;
	}
	same &= done == t->size;
	t->size = done;
	return same;
}

int main(void)
{
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
	load("/fw_cfg.ko");
	say("guest: using memory");
	use_memory();

	/* From here on nothing else is to touch pages. */
	put("/sys/kernel/mm/transparent_hugepage/enabled", "never");
	put("/proc/sys/kernel/sched_rt_runtime_us", "-1");
	put("/proc/sys/vm/stat_interval", "1000");
	sleep(2);
	if (ioperm(PVPANIC, 1, 1) || ioperm(DEBUGCON, 1, 1))
		say("guest: ioperm: %s", strerror(errno));
	struct sched_param first = { .sched_priority = 90 };
	cpu_set_t cpu;
	CPU_ZERO(&cpu);
	CPU_SET(0, &cpu);
	sched_setaffinity(0, sizeof cpu, &cpu);
	sched_setscheduler(0, SCHED_FIFO, &first);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	for (int i = 0; i < TRUTHS; i++) {
		struct truth *t = &truths[i];
		t->fd = open(t->path, O_RDONLY);
		t->room = strstr(t->path, "kpage") || strstr(t->path, "kallsyms") ? 48 << 20 : 1 << 18;
		if (t->fd >= 0 && strstr(t->path, "kpage")) { /* no more than it will need */
			char word[8];
			size_t low = 0;
			for (size_t step = 1 << 30; step >= 1 << 12; step >>= 1)
				if (pread(t->fd, word, 8, (off_t)(low + step)) == 8)
					low += step;
			t->room = low + (1 << 13);
		} else if (t->room > 1 << 20) {
			t->room = 16 << 20;
		}
		t->data = map(t->room);
	}
	int calm = 0, pass = 0;
	while (calm < 2 && ++pass < PASSES) {
		int same = 1;
		for (int i = 0; i < TRUTHS; i++)
			if (truths[i].fd >= 0 && (pass == 1 || truths[i].again || calm))
				if (!ask(&truths[i]) && truths[i].again)
					same = 0, truths[i].moved = pass;
		calm = same ? calm + 1 : 0;
	}
	outb(1, PVPANIC); /* the machine stops here */

	say("guest: %s after %d passes", calm ? "calm" : "never calm", pass);
	for (int i = 0; i < TRUTHS; i++)
		if (pass > 3 && truths[i].moved)
			say("guest: %s moved in pass %d", truths[i].path, truths[i].moved);
	for (int i = 0; i < TRUTHS; i++) {
		char head[128];
		struct truth *t = &truths[i];
		snprintf(head, sizeof head, "%s %zu\n", strrchr(t->path, '/') + 1, t->size);
		outsb(DEBUGCON, head, strlen(head));
		for (size_t done = 0; done < t->size; done += PAGE)
			outsb(DEBUGCON, t->data + done, t->size - done < PAGE ? t->size - done : PAGE);
	}
	reboot(RB_POWER_OFF);
	return 0;
}
