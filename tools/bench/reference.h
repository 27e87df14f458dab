/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The machine under the reference: what a kernel gets from its headers.
 *
 * Emulated physical memory is one flat buffer (offset = physical address) of an
 * attached Linux 4.0 x86-64 guest, SMP and NUMA.  The structs of layout.h, which
 * reference.py writes from the guest's own layout, lie over those bytes, so that
 * a field costs here what it costs in the kernel.  A pointer stored in the bytes
 * is a kernel address; a C pointer is its place in the buffer.  host() and kva()
 * go between the two.
 *
 * Facts: include/linux/{mm,mmzone,gfp,vmstat,list,page-flags}.h, mm/vmstat.c of
 * Linux 4.0.
 */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

#include "layout.h"

#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)

#define PAGE_SIZE	(1UL << PAGE_SHIFT)
#define CHUNK_SHIFT	PMD_SHIFT	/* vmemmap and RAM are translated by 2 MiB */
#define CHUNK_MASK	((1UL << CHUNK_SHIFT) - 1)

/* gfp bits: part of the kernel's API, not of a layout. */
enum {
	__GFP_HIGHMEM = 0x02,
	__GFP_MOVABLE = 0x08,
	__GFP_WAIT = 0x10,
	__GFP_HIGH = 0x20,
	__GFP_COLD = 0x100,
	__GFP_NOFAIL = 0x800,
	__GFP_MEMALLOC = 0x2000,
	__GFP_COMP = 0x4000,
	__GFP_ZERO = 0x8000,
	__GFP_NOMEMALLOC = 0x10000,
	__GFP_HARDWALL = 0x20000,
	__GFP_THISNODE = 0x40000,
	__GFP_RECLAIMABLE = 0x80000,
	__GFP_NO_KSWAPD = 0x400000,
	__GFP_OTHER_NODE = 0x800000,
	__GFP_WRITE = 0x1000000,
};

/* What CONFIG_CPUSETS asks of the running task. */
struct task {
	u64 mems_allowed;
	u32 mems_allowed_seq;
};

/* With spinlocks of four bytes; what is only read when a fault is due is not named. */
struct fail_page_alloc {
	u64 probability;
	u8 _rest[120];
	u32 ignore_gfp_highmem;
	u32 ignore_gfp_wait;
	u32 min_order;
};

/* The attached machine.  Pointers lead into the buffer; reference.py has the same struct. */
struct machine {
	u8 *ram;
	u8 **vmemmap;		/* place of each 2 MiB of the page array, NULL where there is none */
	u64 *virt;		/* kernel address of each 2 MiB of RAM */
	u64 *node_data;		/* kernel addresses, by node */
	u64 *mem_section;	/* kernel addresses of the section roots */
	u64 *per_cpu_offset;
	u64 *cpu_online_bits;
	u64 *jiffies;
	s64 *vm_stat;
	s32 *nr_online_nodes;
	s32 *page_group_by_mobility_disabled;
	u32 *gfp_allowed_mask;
	u64 vm_event_states;	/* per-cpu symbols: add per_cpu_offset */
	u64 numa_node;
	u64 free_compound_page;	/* the compound destructor, as stored in page[1] */
	const struct task *current;
	const struct fail_page_alloc *fail_page_alloc;	/* NULL without CONFIG_FAIL_PAGE_ALLOC */
	u64 cpu;		/* the CPU that runs the operations */
};

/* Not reachable through any pointer, so the compiler may keep its fields in registers. */
static struct machine machine;

/* Kernel address to C pointer.  vmemmap lies above the direct map; nothing here is in kernel text. */
static inline void *host(u64 address)
{
	u64 offset = address - VMEMMAP_START;

	if (address < VMEMMAP_START)
		return machine.ram + (address - PAGE_OFFSET);
	return machine.vmemmap[offset >> CHUNK_SHIFT] + (offset & CHUNK_MASK);
}

/* C pointer to kernel address. */
static inline u64 kva(const void *pointer)
{
	u64 phys = (const u8 *)pointer - machine.ram;

	return machine.virt[phys >> CHUNK_SHIFT] + (phys & CHUNK_MASK);
}

static inline struct page *pfn_to_page(u64 pfn)
{
	return host(VMEMMAP_START + pfn * sizeof(struct page));
}

static inline u64 page_to_pfn(const struct page *page)
{
	return (kva(page) - VMEMMAP_START) / sizeof(struct page);
}

static inline u64 page_address(const struct page *page)
{
	return PAGE_OFFSET + (page_to_pfn(page) << PAGE_SHIFT);
}

static inline struct page *virt_to_page(u64 address)
{
	return pfn_to_page((address - PAGE_OFFSET) >> PAGE_SHIFT);
}

/* ---- per-cpu ---- */

static inline void *per_cpu_ptr(u64 address, u64 cpu)
{
	return machine.ram + (address + machine.per_cpu_offset[cpu] - PAGE_OFFSET);
}

static inline void *this_cpu_ptr(u64 address)
{
	return per_cpu_ptr(address, machine.cpu);
}

static inline bool cpu_online(u64 cpu)
{
	return machine.cpu_online_bits[cpu / 64] >> (cpu % 64) & 1;
}

static inline int numa_node_id(void)
{
	return *(s32 *)this_cpu_ptr(machine.numa_node);
}

/* ---- locks: head and tail of a ticket lock go up by one for each acquisition ---- */

static inline void spin_lock(u8 *lock)
{
	lock[1] += TICKET_LOCK_INC;
}

static inline void spin_unlock(u8 *lock)
{
	lock[0] += TICKET_LOCK_INC;
}

/* ---- lists: links are kernel addresses ---- */

static inline bool list_empty(const struct list_head *head)
{
	return head->next == kva(head);
}

static inline void __list_add(struct list_head *new, u64 prev, u64 next)
{
	u64 address = kva(new);

	((struct list_head *)host(next))->prev = address;
	new->next = next;
	new->prev = prev;
	((struct list_head *)host(prev))->next = address;
}

static inline void list_add(struct list_head *new, struct list_head *head)
{
	__list_add(new, kva(head), head->next);
}

static inline void list_add_tail(struct list_head *new, struct list_head *head)
{
	__list_add(new, head->prev, kva(head));
}

static inline void __list_del_entry(struct list_head *entry)
{
	((struct list_head *)host(entry->next))->prev = entry->prev;
	((struct list_head *)host(entry->prev))->next = entry->next;
}

static inline void list_del(struct list_head *entry)
{
	__list_del_entry(entry);
	entry->next = LIST_POISON1;
	entry->prev = LIST_POISON2;
}

static inline void INIT_LIST_HEAD(struct list_head *head)
{
	head->next = head->prev = kva(head);
}

/* A move leaves no poison behind, unlike list_del() and list_add(). */
static inline void list_move(struct list_head *entry, struct list_head *head)
{
	__list_del_entry(entry);
	list_add(entry, head);
}

/* The struct page whose lru has this kernel address. */
static inline struct page *lru_to_page(u64 link)
{
	return host(link - offsetof(struct page, lru));
}

/* ---- struct page ---- */

static inline bool PageBuddy(const struct page *page)
{
	return page->_mapcount == (s32)PAGE_BUDDY_MAPCOUNT_VALUE;
}

static inline bool PageHead(const struct page *page)
{
	return page->flags & 1UL << PG_head;
}

static inline bool PageTail(const struct page *page)
{
	return page->flags & 1UL << PG_tail;
}

static inline bool PageLRU(const struct page *page)
{
	return page->flags & 1UL << PG_lru;
}

static inline bool PageCompound(const struct page *page)
{
	return page->flags & (1UL << PG_head | 1UL << PG_tail);
}

static inline u64 page_order(const struct page *page)
{
	return page->private;
}

static inline void set_page_order(struct page *page, unsigned int order)
{
	page->private = order;
	page->_mapcount = (s32)PAGE_BUDDY_MAPCOUNT_VALUE;
}

static inline void rmv_page_order(struct page *page)
{
	page->_mapcount = -1;
	page->private = 0;
}

/* index holds a free page's migratetype; an allocated page's pfmemalloc is its low byte. */
static inline void set_freepage_migratetype(struct page *page, int migratetype)
{
	page->index = migratetype;
}

static inline int get_freepage_migratetype(const struct page *page)
{
	return page->index;
}

static inline void page_cpupid_reset_last(struct page *page)
{
	page->flags |= (u64)LAST_CPUPID_MASK << LAST_CPUPID_PGSHIFT;
}

static inline u64 page_zone_id(const struct page *page)
{
	return page->flags >> ZONEID_PGSHIFT & ZONEID_MASK;
}

static inline bool put_page_testzero(struct page *page)
{
	return --page->_count == 0;
}

/* ---- zones ---- */

static inline struct pglist_data *NODE_DATA(int nid)
{
	return host(machine.node_data[nid]);
}

static inline struct zone *page_zone(const struct page *page)
{
	int nid = page->flags >> NODES_PGSHIFT & NODES_MASK;

	return &NODE_DATA(nid)->node_zones[page->flags >> ZONES_PGSHIFT & ZONES_MASK];
}

static inline int zone_idx(struct zone *zone)
{
	return zone - ((struct pglist_data *)host(zone->zone_pgdat))->node_zones;
}

static inline bool zone_spans_pfn(const struct zone *zone, u64 pfn)
{
	return pfn - zone->zone_start_pfn < zone->spanned_pages;
}

static inline struct zonelist *node_zonelist(int nid, u32 gfp_mask)
{
	return &NODE_DATA(nid)->node_zonelists[!!(gfp_mask & __GFP_THISNODE)];
}

static inline struct zoneref *next_zones_zonelist(struct zoneref *z, int highest_zoneidx)
{
	while (z->zone_idx > highest_zoneidx)
		z++;
	return z;
}

static inline struct zone *zonelist_zone(const struct zoneref *z)
{
	return z->zone ? host(z->zone) : NULL;
}

/* Of the allowed nodes only: how the preferred zone is found, once for each request. */
static inline struct zoneref *first_zones_zonelist(struct zonelist *zonelist, int highest_zoneidx, u64 nodes)
{
	struct zoneref *z = zonelist->_zonerefs;

	while (z->zone_idx > highest_zoneidx ||
	       (z->zone && !(nodes >> ((struct zone *)host(z->zone))->node & 1)))
		z++;
	return z;
}

#define for_each_zone_zonelist(zone, z, zonelist, highidx)			\
	for (z = next_zones_zonelist((zonelist)->_zonerefs, highidx);		\
	     (zone = zonelist_zone(z));						\
	     z = next_zones_zonelist(z + 1, highidx))

static inline int gfp_zone(u32 gfp_mask)
{
	return GFP_ZONE_TABLE >> (gfp_mask & GFP_ZONEMASK) * ZONES_SHIFT & ((1 << ZONES_SHIFT) - 1);
}

static inline int gfpflags_to_migratetype(u32 gfp_mask)
{
	if (unlikely(*machine.page_group_by_mobility_disabled))
		return MIGRATE_UNMOVABLE;
	return !!(gfp_mask & __GFP_MOVABLE) << 1 | !!(gfp_mask & __GFP_RECLAIMABLE);
}

/* ---- pageblock flags: four bits a block in its section's usemap, the first bit the highest ---- */

static inline u64 *pageblock_word(u64 pfn, unsigned int *shift)
{
	u64 section = pfn >> PFN_SECTION_SHIFT;
	struct mem_section *root = host(machine.mem_section[section / SECTIONS_PER_ROOT]);
	u64 *usemap = host(root[section % SECTIONS_PER_ROOT].pageblock_flags);
	u64 bit = ((pfn & (PAGES_PER_SECTION - 1)) >> pageblock_order) * NR_PAGEBLOCK_BITS;

	*shift = 63 - (bit % 64 + PB_migrate_end);
	return usemap + bit / 64;
}

#define MIGRATETYPE_MASK	((1UL << (PB_migrate_end - PB_migrate + 1)) - 1)

static inline int get_pfnblock_migratetype(u64 pfn)
{
	unsigned int shift;
	u64 *word = pageblock_word(pfn, &shift);

	return *word >> shift & MIGRATETYPE_MASK;
}

static inline void set_pageblock_migratetype(const struct page *page, int migratetype)
{
	unsigned int shift;
	u64 *word = pageblock_word(page_to_pfn(page), &shift);

	*word = (*word & ~(MIGRATETYPE_MASK << shift)) | (u64)migratetype << shift;
}

/* ---- statistics: differentials of a CPU that fold into the zone and the whole ---- */

static inline void zone_page_state_add(s64 x, struct zone *zone, int item)
{
	zone->vm_stat[item] += x;
	machine.vm_stat[item] += x;
}

static inline u64 zone_page_state(const struct zone *zone, int item)
{
	s64 x = zone->vm_stat[item];

	return x < 0 ? 0 : x;
}

static inline void __mod_zone_page_state(struct zone *zone, int item, int delta)
{
	struct per_cpu_pageset *pset = this_cpu_ptr(zone->pageset);
	s64 x = (s64)delta + pset->vm_stat_diff[item];
	s64 t = pset->stat_threshold;

	if (unlikely(x > t || x < -t)) {
		zone_page_state_add(x, zone, item);
		x = 0;
	}
	pset->vm_stat_diff[item] = x;
}

/* Unlike the above, a fold leaves half the threshold below zero. */
static inline void __inc_zone_state(struct zone *zone, int item)
{
	struct per_cpu_pageset *pset = this_cpu_ptr(zone->pageset);
	s8 v = ++pset->vm_stat_diff[item];
	s8 t = pset->stat_threshold;

	if (unlikely(v > t)) {
		s8 overstep = t >> 1;

		zone_page_state_add(v + overstep, zone, item);
		pset->vm_stat_diff[item] = -overstep;
	}
}

static inline void __mod_zone_freepage_state(struct zone *zone, int nr_pages, int migratetype)
{
	__mod_zone_page_state(zone, NR_FREE_PAGES, nr_pages);
	if (unlikely(migratetype == MIGRATE_CMA))
		__mod_zone_page_state(zone, NR_FREE_CMA_PAGES, nr_pages);
}

static inline void zone_statistics(struct zone *preferred_zone, struct zone *zone, u32 gfp_mask)
{
	bool other = gfp_mask & __GFP_OTHER_NODE;

	if (zone->zone_pgdat == preferred_zone->zone_pgdat) {
		__inc_zone_state(zone, NUMA_HIT);
	} else {
		__inc_zone_state(zone, NUMA_MISS);
		__inc_zone_state(preferred_zone, NUMA_FOREIGN);
	}
	if (zone->node == (other ? preferred_zone->node : numa_node_id()))
		__inc_zone_state(zone, NUMA_LOCAL);
	else
		__inc_zone_state(zone, NUMA_OTHER);
}

static inline void __count_vm_events(int item, u64 delta)
{
	struct vm_event_state *state = this_cpu_ptr(machine.vm_event_states);

	state->event[item] += delta;
}

#endif
