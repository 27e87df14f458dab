// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs a page script inside Linux 4.0, with nothing else going on, and stops the machine before and after.
 *
 * Copied into the kernel's mm/ by build.sh.  /script is in the initramfs, in the language of kernelmm/study/script.py.
 * A task on every CPU has interrupts off; the one whose turn it is (T) performs operations, the others answer cross
 * calls by polling, so that drain_all_pages() works.  With I, one task runs with interrupts on.  Reclaim switches
 * interrupts on by itself: until the end no CPU lets any reach it, so that no time passes and nobody else runs.
 * At moments A and B the machine is stopped through the pvpanic device; results go to the debug console afterwards.
 */
#include <linux/mm.h>
#include <linux/io.h>
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/smp.h>
#include <linux/file.h>
#include <linux/slab.h>
#include <linux/swap.h>
#include <linux/sched.h>
#include <linux/vmalloc.h>
#include <linux/kallsyms.h>
#include <linux/syscalls.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/migrate.h>
#include <linux/pagemap.h>
#include <linux/shmem_fs.h>
#include <linux/fault-inject.h>
#include <linux/page-isolation.h>
#include "internal.h"

#define PVPANIC_PORT 0x505
#define DEBUGCON_PORT 0xe9
#define MAX_WORDS 7
/* Priorities up to this are kept from the CPU: all there are. */
#define NO_INTERRUPTS 15
/* What one leaf of kernelmm's page tables has. */
#define FILE_PAGES 512UL
#define RECORDS 3
/* ROOT_MAGIC of kernelmm/pressure/owners.py. */
#define RECORDS_MARK 0x746F6F722D6D6D6BUL
/* What a task may have of PF_*, by t. */
#define TASK_FLAGS (PF_KTHREAD | PF_MEMALLOC | PF_MEMALLOC_NOIO | PF_DUMPCORE)

struct operation {
	char code;
	char field;
	long word[MAX_WORDS];
};

struct outcome {
	long pfn;
	int order, migratetype, count;
};

/* As mm/page_alloc.c declares it: there it is static. */
struct page_faults {
	struct fault_attr attr;
	u32 ignore_gfp_highmem;
	u32 ignore_gfp_wait;
	u32 min_order;
};

static struct operation *ops;
static struct outcome *outcomes;
static struct page **pages;
static unsigned long nr_ops, nr_ids;
static bool interrupts, warm;
static struct page_faults *faults;
static struct file *file;

static volatile int turn;
static volatile unsigned long next_op;
static volatile bool finished;
static atomic_t quiet = ATOMIC_INIT(0);

static void say(const char *text, size_t size)
{
	outsb(DEBUGCON_PORT, text, size);
}

static __printf(1, 2) void sayf(const char *format, ...)
{
	char line[128];
	va_list args;
	int size;

	va_start(args, format);
	size = vscnprintf(line, sizeof(line), format, args);
	va_end(args);
	say(line, size);
}

/* The host dumps memory while the machine stands here. */
static noinline void moment(void)
{
	int i;

	outb(1, PVPANIC_PORT);
	for (i = 0; i < 1000; i++)
		cpu_relax();
}

/* -- reading the script ---------------------------------------------------- */

static char *load(const char *path, long *size)
{
	mm_segment_t old = get_fs();
	char *text = NULL;
	long done = 0, got;
	int fd;

	set_fs(KERNEL_DS);
	fd = sys_open((const char __user *)path, O_RDONLY, 0);
	if (fd >= 0) {
		*size = sys_lseek(fd, 0, SEEK_END);
		sys_lseek(fd, 0, SEEK_SET);
		text = vzalloc(*size + 1);
		while (text && done < *size) {
			got = sys_read(fd, (char __user *)text + done, *size - done);
			if (got <= 0)
				break;
			done += got;
		}
		sys_close(fd);
		/* Its pages would be the only ones that are in a page cache. */
		sys_unlink((const char __user *)path);
	}
	set_fs(old);
	return text;
}

static unsigned long words_of(char code)
{
	switch (code) {
	case 'a': case 'x': case 'L':
		return 4;
	case 'S': case 'R':
		return 3;
	case 'f': case 'F': case 'G': case 'P': case 'n': case 'i': case 'u': case 'C':
		return 2;
	case 'c': case 'B': case 'g': case 'p': case 'T': case 't':
		return 1;
	case 'k': case 'K':
		return 7;
	default:
		return 0;
	}
}

static void note_id(long id)
{
	if (id + 1 > nr_ids)
		nr_ids = id + 1;
}

static void parse_line(char *line, struct operation *op)
{
	unsigned long i, count = words_of(line[0]);

	op->code = line[0];
	line++;
	for (i = 0; i < count; i++) {
		bool hex = (op->code == 'a' && i == 3) || op->code == 't' || (op->code == 'x' && i == 3 && strchr("psz", op->field));
		char *end;

		line = skip_spaces(line);
		if (op->code == 'x' && i == 2) {
			op->field = *line++;
			continue;
		}
		op->word[i] = *line == '-' ? -(long)simple_strtoull(line + 1, &end, hex ? 16 : 10)
					   : (long)simple_strtoull(line, &end, hex ? 16 : 10);
		line = end;
	}
	if (op->code == 'a' || op->code == 'L')
		note_id(op->word[0]);
	if (op->code == 'S')
		note_id(op->word[2] + (1L << op->word[1]) - 1);
}

static void set_faults(const struct operation *op)
{
	if (!faults)
		return;
	faults->attr.probability = op->word[0];
	faults->attr.interval = op->word[1];
	atomic_set(&faults->attr.times, op->word[2]);
	atomic_set(&faults->attr.space, op->word[3]);
	faults->min_order = op->word[4];
	faults->ignore_gfp_wait = op->word[5];
	faults->ignore_gfp_highmem = op->word[6];
}

/*
 * A file with a page cache of clean pages: one of tmpfs, with operations of its own, and pages as those of a disk.
 * An entry in every leaf of its radix tree keeps the leaf there: nothing has to be allocated for C.
 */
static const struct address_space_operations file_operations = {
	.set_page_dirty = __set_page_dirty_no_writeback,
	.migratepage = migrate_page,
};

static struct file *open_file(void)
{
	struct file *fresh = shmem_file_setup("oracle", FILE_PAGES << PAGE_SHIFT, 0);
	unsigned long last;

	if (IS_ERR(fresh))
		return NULL;
	fresh->f_mapping->a_ops = &file_operations;
	for (last = RADIX_TREE_MAP_SIZE - 1; last < FILE_PAGES; last += RADIX_TREE_MAP_SIZE)
		if (radix_tree_insert(&fresh->f_mapping->page_tree, last, (void *)RADIX_TREE_EXCEPTIONAL_ENTRY))
			return NULL;
	return fresh;
}

static bool prepare(void)
{
	char *text, *line, *rest;
	long size;
	unsigned long lines = 0, i;

	text = load("/script", &size);
	if (!text)
		return false;
	for (i = 0; i < size; i++)
		lines += text[i] == '\n';
	ops = vzalloc((lines + 1) * sizeof(*ops));
	outcomes = vzalloc((lines + 1) * sizeof(*outcomes));
	if (!ops || !outcomes)
		return false;
	rest = text;
	while ((line = strsep(&rest, "\n"))) {
		struct operation *op = &ops[nr_ops];

		if (!*line || *line == '#')
			continue;
		parse_line(line, op);
		if (op->code == 'I')
			interrupts = true;
		else if (op->code == 'W')
			warm = true;
		else if (op->code == 'K')
			set_faults(op);
		else if (op->code == 'M' && !file && !(file = open_file()))
			return false;
		else
			nr_ops++;
	}
	vfree(text);
	pages = vzalloc((nr_ids + 1) * sizeof(*pages));
	return pages != NULL;
}

/* -- performing it --------------------------------------------------------- */

static struct outcome outcome_of(struct page *page, int order, int count)
{
	struct outcome found = { -1, order, -1, -1 };

	if (page) {
		found.pfn = page_to_pfn(page);
		found.migratetype = get_pageblock_migratetype(page);
		found.count = count;
	}
	return found;
}

static struct outcome on_range(const struct operation *op)
{
	struct outcome found = { op->word[0], 0, -1, 0 };

	if (op->code == 'L') {
		struct page *first = pfn_to_page(op->word[1]);

		found.pfn = op->word[1];
		found.order = op->word[3];
		found.count = alloc_contig_range(op->word[1], op->word[2], op->word[3]);
		pages[op->word[0]] = found.count ? NULL : first;
	} else if (op->code == 'i') {
		found.count = start_isolate_page_range(op->word[0], op->word[1], MIGRATE_MOVABLE, false);
	} else {
		found.count = undo_isolate_page_range(op->word[0], op->word[1], MIGRATE_MOVABLE);
	}
	found.migratetype = get_pageblock_migratetype(pfn_to_page(found.pfn));
	return found;
}

static void write_field(struct page *page, char field, long value)
{
	switch (field) {
	case 'm':
		atomic_set(&page->_mapcount, value);
		break;
	case 'c':
		atomic_set(&page->_count, value);
		break;
	case 'p':
		page->mapping = (struct address_space *)value;
		break;
	case 's':
		page->flags |= value;
		break;
	case 'z':
		page->flags &= ~value;
		break;
	}
}

static struct outcome on_page(const struct operation *op)
{
	struct page *page = pages[op->word[0]];
	int order = 0, i;

	if (strchr("fFGPxS", op->code))
		order = op->word[1];
	if (op->code == 'S')
		for (i = 0; i < 1 << order; i++)
			pages[op->word[2] + i] = page ? page + i : NULL;
	if (!page)
		return outcome_of(NULL, op->code == 'R' ? 0 : order, -1);
	if (strchr("GPx", op->code))
		page += op->word[1];
	switch (op->code) {
	case 'f':
		__free_pages(page, order);
		break;
	case 'F':
		free_pages((unsigned long)page_address(page), order);
		break;
	case 'c':
		if (put_page_testzero(page))
			free_hot_cold_page(page, true);
		break;
	case 'B':
		free_hot_cold_page(page, false);
		break;
	case 'g': case 'G':
		get_page(page);
		break;
	case 'p': case 'P':
		put_page(page);
		break;
	case 'S':
		split_page(page, order);
		break;
	case 'C':
		if (add_to_page_cache_lru(page, file->f_mapping, op->word[1], GFP_NOWAIT))
			return outcome_of(NULL, 0, -1);
		SetPageUptodate(page);
		unlock_page(page);
		page_cache_release(page);
		lru_add_drain();
		return outcome_of(page, 0, page_count(page));
	case 'x':
		write_field(page, op->field, op->word[3]);
		return outcome_of(page, order, atomic_read(&page->_count));
#ifdef CONFIG_CMA
	case 'R':
		page += op->word[1];
		free_contig_range(page_to_pfn(page), op->word[2]);
		break;
#endif
	}
	return outcome_of(page, order, page_count(page));
}

/* Pages as kernelmm takes for what it has to know of a file. */
static struct outcome make_records(void)
{
	struct outcome found = { -1, 0, -1, -1 };
	int i;

	for (i = 0; i < RECORDS; i++) {
		/* Not alloc_pages(): until the end of the boot its memory policy interleaves. */
		struct page *page = alloc_pages_node(-1, GFP_KERNEL, 0);

		if (!page)
			break;
		if (i == 0)
			set_page_private(page, RECORDS_MARK);
		found = outcome_of(page, 0, page_count(page));
	}
	return found;
}

static struct outcome perform(const struct operation *op)
{
	struct outcome none = { -1, 0, -1, -1 };
	struct page *page;
	struct zone *zone;

	switch (op->code) {
	case 'a':
		page = alloc_pages_node(op->word[1], op->word[3], op->word[2]);
		pages[op->word[0]] = page;
		return outcome_of(page, op->word[2], page ? page_count(page) : -1);
	case 'd':
		drain_local_pages(NULL);
		return none;
	case 'D':
		drain_all_pages(NULL);
		return none;
	case 'n':
		zone = &NODE_DATA(0)->node_zones[op->word[0]];
		mod_zone_page_state(zone, NR_PAGES_SCANNED, op->word[1]);
		none.order = op->word[0];
		none.count = atomic_long_read(&zone->vm_stat[NR_PAGES_SCANNED]);
		return none;
	case 't':
		current->flags = (current->flags & ~TASK_FLAGS) | (op->word[0] & TASK_FLAGS);
		return none;
	case 'M':
		return make_records();
	case 'k':
		set_faults(op);
		none.order = op->word[4];
		none.count = faults ? faults->attr.count : -1;
		return none;
	case 'L': case 'i': case 'u':
		return on_range(op);
	default:
		return on_page(op);
	}
}

/* Perform operations up to the next change of CPU. */
static void go_on(int cpu)
{
	while (next_op < nr_ops) {
		const struct operation *op = &ops[next_op];

		if (op->code == 'T') {
			next_op++;
			if (op->word[0] != cpu) {
				smp_wmb();
				turn = op->word[0];
				return;
			}
			continue;
		}
		outcomes[next_op] = perform(op);
		local_irq_disable();
		next_op++;
	}
	moment();
	smp_wmb();
	finished = true;
}

/* A CPU with interrupts off: works when it has its turn, else answers cross calls. */
static void take_turns(int cpu)
{
	while (!finished) {
		if (turn == cpu) {
			smp_rmb();
			go_on(cpu);
		} else {
			generic_smp_call_function_single_interrupt();
			cpu_relax();
		}
	}
}

static int other_cpu(void *unused)
{
	local_irq_disable();
	write_cr8(NO_INTERRUPTS);
	atomic_inc(&quiet);
	take_turns(smp_processor_id());
	write_cr8(0);
	local_irq_enable();
	return 0;
}

static void without_interrupts(void)
{
	int cpu;

	for_each_online_cpu(cpu)
		if (cpu) {
			struct task_struct *task = kthread_create(other_cpu, NULL, "oracle/%u", cpu);

			kthread_bind(task, cpu);
			wake_up_process(task);
		}
	while (atomic_read(&quiet) != num_online_cpus() - 1)
		cpu_relax();
	local_irq_disable();
	write_cr8(NO_INTERRUPTS);
	/* Cross calls are answered although interrupts are off: do not warn of them. */
	oops_in_progress = 1;
	moment();
	smp_wmb();
	turn = 0;
	take_turns(0);
	oops_in_progress = 0;
	write_cr8(0);
	local_irq_enable();
}

static void with_interrupts(void)
{
	moment();
	for (; next_op < nr_ops; next_op++) {
		const struct operation *op = &ops[next_op];

		if (op->code == 'T')
			set_cpus_allowed_ptr(current, cpumask_of(op->word[0]));
		else
			outcomes[next_op] = perform(op);
	}
	moment();
}

/* Every path that is to run has run once: no static key or lazily made page is left for later. */
static void warm_up(void)
{
	int i, order, cpu;

	for_each_online_cpu(cpu) {
		set_cpus_allowed_ptr(current, cpumask_of(cpu));
		msleep(20);
	}
	set_cpus_allowed_ptr(current, cpumask_of(0));
	for (i = 0; i < 64; i++)
		for (order = 0; order < 4; order++) {
			struct page *page = alloc_pages(GFP_NOWAIT, order);

			if (page)
				__free_pages(page, order);
		}
	drain_all_pages(NULL);
	/* Nor has any cache something that reclaim could free. */
	drop_slab();
}

static int __init oracle_init(void)
{
	unsigned long i;

	faults = (void *)kallsyms_lookup_name("fail_page_alloc");
	if (!prepare()) {
		sayf("failed\n");
		return 0;
	}
	turn = -1;
	set_cpus_allowed_ptr(current, cpumask_of(0));
	if (warm)
		warm_up();
	/* The pages of /script are on their way to the LRU lists: they would get there during alloc_contig_range(). */
	lru_add_drain_all();
	msleep(300);
	if (interrupts)
		with_interrupts();
	else
		without_interrupts();
	for (i = 0; i < nr_ops; i++) {
		struct outcome *o = &outcomes[i];

		if (ops[i].code != 'T')
			sayf("%c %ld %d %d %d\n", ops[i].code, o->pfn, o->order, o->migratetype, o->count);
	}
	sayf("end\n");
	return 0;
}
late_initcall_sync(oracle_init);
