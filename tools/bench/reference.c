// SPDX-License-Identifier: GPL-2.0-only
/*
 * Linux 4.0's page allocator in C, over the bytes of an attached machine: what
 * `make bench` measures the Python engine against.
 *
 * The kernel's functions under their names, as CONFIG_DEBUG_VM=n compiles them:
 * the same decisions, the same writes, the same order, and what CONFIG_CPUSETS
 * and CONFIG_FAIL_PAGE_ALLOC ask of each request.  No tracepoints, no mempolicy,
 * no cpuset but that of all tasks, no faults injected; what lies behind __GFP_WAIT in the slow path (reclaim, compaction, OOM) and the dirty limits of
 * __GFP_WRITE are refused, not guessed.  Links in the bytes are trusted as the
 * kernel trusts them.
 *
 * Facts: mm/page_alloc.c, mm/vmscan.c, mm/swap.c of Linux 4.0.
 */
#include <time.h>

#include "reference.h"

struct alloc_context {
	struct zonelist *zonelist;
	struct zone *preferred_zone;
	int classzone_idx;
	int migratetype;
	int high_zoneidx;
};

/* Set when an operation needs something that is not here. */
static bool unsupported;

/* ---- the buddy system ---- */

static inline bool page_is_buddy(const struct page *page, const struct page *buddy, unsigned int order)
{
	return PageBuddy(buddy) && page_order(buddy) == order && page_zone_id(page) == page_zone_id(buddy);
}

static inline void __free_one_page(struct page *page, u64 pfn, struct zone *zone, unsigned int order, int migratetype)
{
	unsigned int max_order = MAX_ORDER;
	u64 page_idx, buddy_idx = 0;
	bool merge_soon = false;

	/* Isolated pages are not counted free, and must not merge with blocks that are. */
	if (unlikely(migratetype == MIGRATE_ISOLATE))
		max_order = pageblock_order + 1;
	else
		__mod_zone_freepage_state(zone, 1 << order, migratetype);

	page_idx = pfn & ((1UL << max_order) - 1);
	for (; order < max_order - 1; order++) {
		struct page *buddy;

		buddy_idx = page_idx ^ 1UL << order;
		buddy = page + (s64)(buddy_idx - page_idx);
		if (!page_is_buddy(page, buddy, order))
			break;
		list_del(&buddy->lru);
		zone->free_area[order].nr_free--;
		rmv_page_order(buddy);
		page += (s64)((page_idx & buddy_idx) - page_idx);
		page_idx &= buddy_idx;
	}
	set_page_order(page, order);

	/* Our buddy is busy; if the pair above has a free buddy, keep this block for a later merge. */
	if (order < MAX_ORDER - 2) {
		u64 higher_idx = page_idx & buddy_idx;
		struct page *higher_page = page + (s64)(higher_idx - page_idx);
		struct page *higher_buddy = higher_page + (s64)((higher_idx ^ 1UL << (order + 1)) - higher_idx);

		merge_soon = page_is_buddy(higher_page, higher_buddy, order + 1);
	}
	if (merge_soon)
		list_add_tail(&page->lru, &zone->free_area[order].free_list[migratetype]);
	else
		list_add(&page->lru, &zone->free_area[order].free_list[migratetype]);
	zone->free_area[order].nr_free++;
}

/* Give back the upper halves; their index keeps whatever migratetype it had. */
static inline void expand(struct page *page, int low, int high, struct free_area *area, int migratetype)
{
	while (high > low) {
		struct page *half;

		area--;
		high--;
		half = page + (1UL << high);
		list_add(&half->lru, &area->free_list[migratetype]);
		area->nr_free++;
		set_page_order(half, high);
	}
}

static inline struct page *__rmqueue_smallest(struct zone *zone, unsigned int order, int migratetype)
{
	for (unsigned int current_order = order; current_order < MAX_ORDER; current_order++) {
		struct free_area *area = &zone->free_area[current_order];
		struct page *page;

		if (list_empty(&area->free_list[migratetype]))
			continue;
		page = lru_to_page(area->free_list[migratetype].next);
		list_del(&page->lru);
		rmv_page_order(page);
		area->nr_free--;
		expand(page, order, current_order, area, migratetype);
		set_freepage_migratetype(page, migratetype);
		return page;
	}
	return NULL;
}

/* ---- mobility: where to steal from, and how much ---- */

/* Read up to MIGRATE_RESERVE, which __rmqueue() tries itself. */
static const int fallbacks[MIGRATE_PCPTYPES][4] = {
	[MIGRATE_UNMOVABLE] = { MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE, MIGRATE_RESERVE },
	[MIGRATE_RECLAIMABLE] = { MIGRATE_UNMOVABLE, MIGRATE_MOVABLE, MIGRATE_RESERVE },
	[MIGRATE_MOVABLE] = { MIGRATE_CMA, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE, MIGRATE_RESERVE },
};

/* Pages of the block that were free and are now on the lists of migratetype. */
static int move_freepages_block(struct zone *zone, struct page *page, int migratetype)
{
	u64 pfn = page_to_pfn(page);
	u64 start_pfn = pfn & ~(pageblock_nr_pages - 1UL);
	struct page *end = page + (s64)(start_pfn + pageblock_nr_pages - pfn);
	int pages_moved = 0;

	if (!zone_spans_pfn(zone, start_pfn + pageblock_nr_pages - 1))
		return 0;
	if (zone_spans_pfn(zone, start_pfn))
		page = end - pageblock_nr_pages;

	while (page < end) {
		u64 order;

		if (!PageBuddy(page)) {
			page++;
			continue;
		}
		order = page_order(page);
		list_move(&page->lru, &zone->free_area[order].free_list[migratetype]);
		set_freepage_migratetype(page, migratetype);
		page += 1UL << order;
		pages_moved += 1 << order;
	}
	return pages_moved;
}

static void try_to_steal_freepages(struct zone *zone, struct page *page, int start_type)
{
	u64 current_order = page_order(page);
	bool everything = *machine.page_group_by_mobility_disabled;

	if (current_order >= pageblock_order) {
		for (u64 i = 0; i < 1UL << current_order; i += pageblock_nr_pages)
			set_pageblock_migratetype(page + i, start_type);
		return;
	}
	if (current_order < pageblock_order / 2 && start_type == MIGRATE_MOVABLE && !everything)
		return;
	/* The page itself is still on its list, and counts. */
	if (move_freepages_block(zone, page, start_type) >= 1 << (pageblock_order - 1) || everything)
		set_pageblock_migratetype(page, start_type);
}

static inline struct page *__rmqueue_fallback(struct zone *zone, unsigned int order, int start_migratetype)
{
	for (int current_order = MAX_ORDER - 1; current_order >= (int)order; current_order--) {
		struct free_area *area = &zone->free_area[current_order];

		for (const int *type = fallbacks[start_migratetype]; *type != MIGRATE_RESERVE; type++) {
			int buddy_type = *type == MIGRATE_CMA ? MIGRATE_CMA : start_migratetype;
			struct page *page;

			if (list_empty(&area->free_list[*type]))
				continue;
			page = lru_to_page(area->free_list[*type].next);
			area->nr_free--;
			if (*type != MIGRATE_CMA)
				try_to_steal_freepages(zone, page, start_migratetype);
			list_del(&page->lru);
			rmv_page_order(page);
			expand(page, order, current_order, area, buddy_type);
			set_freepage_migratetype(page, buddy_type);
			return page;
		}
	}
	return NULL;
}

static struct page *__rmqueue(struct zone *zone, unsigned int order, int migratetype)
{
	struct page *page = __rmqueue_smallest(zone, order, migratetype);

	if (unlikely(!page)) {
		page = __rmqueue_fallback(zone, order, migratetype);
		if (!page)
			page = __rmqueue_smallest(zone, order, MIGRATE_RESERVE);
	}
	return page;
}

/* ---- freeing ---- */

/* Only what the report does to memory: the page must not look like a buddy. */
static void bad_page(struct page *page)
{
	page->_mapcount = -1;
}

static inline bool free_pages_check(struct page *page)
{
	if (unlikely(page->_mapcount != -1 || page->mapping || page->_count ||
		     page->flags & PAGE_FLAGS_CHECK_AT_FREE)) {
		bad_page(page);
		return true;
	}
	page_cpupid_reset_last(page);
	if (page->flags & PAGE_FLAGS_CHECK_AT_PREP)
		page->flags &= ~(u64)PAGE_FLAGS_CHECK_AT_PREP;
	return false;
}

static bool free_pages_prepare(struct page *page, unsigned int order)
{
	int bad = 0;

	if (page->mapping & 1)		/* PageAnon */
		page->mapping = 0;
	for (int i = 0; i < 1 << order; i++)
		bad += free_pages_check(page + i);
	return !bad;
}

static inline void reset_pages_scanned(struct zone *zone)
{
	u64 nr_scanned = zone_page_state(zone, NR_PAGES_SCANNED);

	if (nr_scanned)
		__mod_zone_page_state(zone, NR_PAGES_SCANNED, -nr_scanned);
}

/* Round robin over the lists from RECLAIMABLE on, more from a list for each empty one passed. */
static void free_pcppages_bulk(struct zone *zone, int count, struct per_cpu_pages *pcp)
{
	int migratetype = 0;
	int batch_free = 0;

	spin_lock(zone->lock);
	reset_pages_scanned(zone);
	while (count) {
		struct list_head *list;

		do {
			batch_free++;
			if (++migratetype == MIGRATE_PCPTYPES)
				migratetype = 0;
			list = &pcp->lists[migratetype];
		} while (list_empty(list));
		if (batch_free == MIGRATE_PCPTYPES)
			batch_free = count;
		do {
			struct page *page = lru_to_page(list->prev);
			u64 pfn = page_to_pfn(page);
			int mt;

			list_del(&page->lru);
			mt = get_freepage_migratetype(page);
			if (unlikely(zone->nr_isolate_pageblock))
				mt = get_pfnblock_migratetype(pfn);
			__free_one_page(page, pfn, zone, 0, mt);
		} while (--count && --batch_free && !list_empty(list));
	}
	spin_unlock(zone->lock);
}

static void free_one_page(struct zone *zone, struct page *page, u64 pfn, unsigned int order, int migratetype)
{
	spin_lock(zone->lock);
	reset_pages_scanned(zone);
	if (unlikely(zone->nr_isolate_pageblock || migratetype == MIGRATE_ISOLATE))
		migratetype = get_pfnblock_migratetype(pfn);
	__free_one_page(page, pfn, zone, order, migratetype);
	spin_unlock(zone->lock);
}

static void __free_pages_ok(struct page *page, unsigned int order)
{
	u64 pfn = page_to_pfn(page);
	int migratetype;

	if (!free_pages_prepare(page, order))
		return;
	migratetype = get_pfnblock_migratetype(pfn);
	__count_vm_events(PGFREE, 1 << order);
	set_freepage_migratetype(page, migratetype);
	free_one_page(page_zone(page), page, pfn, order, migratetype);
}

static void free_hot_cold_page(struct page *page, bool cold)
{
	u64 pfn = page_to_pfn(page);
	struct zone *zone = page_zone(page);
	struct per_cpu_pages *pcp;
	int migratetype;

	if (!free_pages_prepare(page, 0))
		return;
	migratetype = get_pfnblock_migratetype(pfn);
	set_freepage_migratetype(page, migratetype);
	__count_vm_events(PGFREE, 1);
	if (migratetype >= MIGRATE_PCPTYPES) {
		if (unlikely(migratetype == MIGRATE_ISOLATE)) {
			free_one_page(zone, page, pfn, 0, migratetype);
			return;
		}
		migratetype = MIGRATE_MOVABLE;
	}

	pcp = &((struct per_cpu_pageset *)this_cpu_ptr(zone->pageset))->pcp;
	if (!cold)
		list_add(&page->lru, &pcp->lists[migratetype]);
	else
		list_add_tail(&page->lru, &pcp->lists[migratetype]);
	if (++pcp->count >= pcp->high) {
		int batch = pcp->batch;

		free_pcppages_bulk(zone, batch, pcp);
		pcp->count -= batch;
	}
}

static void __free_pages(struct page *page, unsigned int order)
{
	if (put_page_testzero(page)) {
		if (order == 0)
			free_hot_cold_page(page, false);
		else
			__free_pages_ok(page, order);
	}
}

static void free_pages(u64 address, unsigned int order)
{
	if (address)
		__free_pages(virt_to_page(address), order);
}

/* A script gets and puts heads and single pages; tails, and pages on an LRU list, are not here. */
static void get_page(struct page *page)
{
	if (unlikely(PageTail(page)))
		unsupported = true;
	page->_count++;
}

static void put_page(struct page *page)
{
	if (unlikely(PageCompound(page))) {
		if (PageTail(page))
			unsupported = true;
		else if (put_page_testzero(page))
			__free_pages_ok(page, page[1].compound_order);
	} else if (put_page_testzero(page)) {
		if (unlikely(PageLRU(page)))
			unsupported = true;
		free_hot_cold_page(page, false);
	}
}

static void split_page(struct page *page, unsigned int order)
{
	for (int i = 1; i < 1 << order; i++)
		page[i]._count = 1;
}

static void drain_local_pages(void)
{
	for (int nid = 0; nid < MAX_NUMNODES; nid++) {
		if (!machine.node_data[nid])
			continue;
		for (int i = 0; i < MAX_NR_ZONES; i++) {
			struct zone *zone = &NODE_DATA(nid)->node_zones[i];
			struct per_cpu_pages *pcp;

			if (!zone->present_pages)
				continue;
			pcp = &((struct per_cpu_pageset *)this_cpu_ptr(zone->pageset))->pcp;
			if (pcp->count) {
				free_pcppages_bulk(zone, pcp->count, pcp);
				pcp->count = 0;
			}
		}
	}
}

static void drain_all_pages(void)
{
	u64 self = machine.cpu;

	for (machine.cpu = 0; machine.cpu < NR_CPUS; machine.cpu++)
		if (cpu_online(machine.cpu))
			drain_local_pages();
	machine.cpu = self;
}

/* ---- allocating ---- */

static inline bool check_new_page(struct page *page)
{
	if (unlikely(page->_mapcount != -1 || page->mapping || page->_count ||
		     page->flags & PAGE_FLAGS_CHECK_AT_PREP)) {
		bad_page(page);
		return true;
	}
	return false;
}

static void prep_compound_page(struct page *page, unsigned int order)
{
	u64 head = kva(page);

	page[1].compound_dtor = machine.free_compound_page;
	page[1].compound_order = order;
	page->flags |= 1UL << PG_head;
	for (int i = 1; i < 1 << order; i++) {
		page[i]._count = 0;
		page[i].first_page = head;
		page[i].flags |= 1UL << PG_tail;
	}
}

static bool prep_new_page(struct page *page, unsigned int order, u32 gfp_mask, int alloc_flags)
{
	for (int i = 0; i < 1 << order; i++)
		if (unlikely(check_new_page(page + i)))
			return false;
	page->private = 0;
	page->_count = 1;
	if (gfp_mask & __GFP_ZERO)
		memset(host(page_address(page)), 0, PAGE_SIZE << order);
	if (order && gfp_mask & __GFP_COMP)
		prep_compound_page(page, order);
	page->pfmemalloc = !!(alloc_flags & ALLOC_NO_WATERMARKS);
	return true;
}

/* The list head moves along with each page, so that the list is in order of allocation. */
static int rmqueue_bulk(struct zone *zone, int count, struct list_head *list, int migratetype, bool cold)
{
	int i;

	spin_lock(zone->lock);
	for (i = 0; i < count; i++) {
		struct page *page = __rmqueue(zone, 0, migratetype);

		if (unlikely(!page))
			break;
		if (likely(!cold))
			list_add(&page->lru, list);
		else
			list_add_tail(&page->lru, list);
		list = &page->lru;
		if (unlikely(get_freepage_migratetype(page) == MIGRATE_CMA))
			__mod_zone_page_state(zone, NR_FREE_CMA_PAGES, -1);
	}
	__mod_zone_page_state(zone, NR_FREE_PAGES, -i);
	spin_unlock(zone->lock);
	return i;
}

static inline struct page *buffered_rmqueue(struct zone *preferred_zone, struct zone *zone, unsigned int order,
					    u32 gfp_mask, int migratetype)
{
	struct page *page;

	if (likely(order == 0)) {
		struct per_cpu_pages *pcp = &((struct per_cpu_pageset *)this_cpu_ptr(zone->pageset))->pcp;
		struct list_head *list = &pcp->lists[migratetype];
		bool cold = gfp_mask & __GFP_COLD;

		if (list_empty(list)) {
			pcp->count += rmqueue_bulk(zone, pcp->batch, list, migratetype, cold);
			if (unlikely(list_empty(list)))
				return NULL;
		}
		page = lru_to_page(cold ? list->prev : list->next);
		list_del(&page->lru);
		pcp->count--;
	} else {
		spin_lock(zone->lock);
		page = __rmqueue(zone, order, migratetype);
		spin_unlock(zone->lock);
		if (!page)
			return NULL;
		__mod_zone_freepage_state(zone, -(1 << order), get_freepage_migratetype(page));
	}

	__mod_zone_page_state(zone, NR_ALLOC_BATCH, -(1 << order));
	if (zone->vm_stat[NR_ALLOC_BATCH] <= 0)
		zone->flags |= 1UL << ZONE_FAIR_DEPLETED;
	__count_vm_events(PGALLOC_DMA + zone_idx(zone), 1 << order);
	zone_statistics(preferred_zone, zone, gfp_mask);
	return page;
}

static bool __zone_watermark_ok(const struct zone *zone, unsigned int order, u64 mark, int classzone_idx,
				int alloc_flags, s64 free_pages)
{
	s64 min = mark;
	s64 free_cma = 0;

	free_pages -= (1 << order) - 1;
	if (alloc_flags & ALLOC_HIGH)
		min -= min / 2;
	if (alloc_flags & ALLOC_HARDER)
		min -= min / 4;
	if (!(alloc_flags & ALLOC_CMA))
		free_cma = zone_page_state(zone, NR_FREE_CMA_PAGES);
	if (free_pages - free_cma <= min + zone->lowmem_reserve[classzone_idx])
		return false;
	for (unsigned int o = 0; o < order; o++) {
		free_pages -= zone->free_area[o].nr_free << o;
		min >>= 1;
		if (free_pages <= min)
			return false;
	}
	return true;
}

static bool zone_watermark_ok(const struct zone *zone, unsigned int order, u64 mark, int classzone_idx, int alloc_flags)
{
	return __zone_watermark_ok(zone, order, mark, classzone_idx, alloc_flags, zone_page_state(zone, NR_FREE_PAGES));
}

/* ---- the zonelist cache: zones found full are passed over for up to a second ---- */

static void zlc_setup(struct zonelist *zonelist)
{
	struct zonelist_cache *zlc;

	if (!zonelist->zlcache_ptr)
		return;
	zlc = host(zonelist->zlcache_ptr);
	if ((s64)(zlc->last_full_zap + HZ - *machine.jiffies) < 0) {
		memset(zlc->fullzones, 0, sizeof(zlc->fullzones));
		zlc->last_full_zap = *machine.jiffies;
	}
}

/* Every node with memory is allowed, so that only the full bit decides. */
static bool zlc_zone_worth_trying(struct zonelist *zonelist, struct zoneref *z)
{
	u64 i = z - zonelist->_zonerefs;
	struct zonelist_cache *zlc;

	if (!zonelist->zlcache_ptr)
		return true;
	zlc = host(zonelist->zlcache_ptr);
	return !(zlc->fullzones[i / 64] >> (i % 64) & 1);
}

static void zlc_mark_zone_full(struct zonelist *zonelist, struct zoneref *z)
{
	u64 i = z - zonelist->_zonerefs;
	struct zonelist_cache *zlc;

	if (!zonelist->zlcache_ptr)
		return;
	zlc = host(zonelist->zlcache_ptr);
	zlc->fullzones[i / 64] |= 1UL << (i % 64);
}

/* From the node's first zone on, populated or not, through the CPU's differentials. */
static void reset_alloc_batches(struct zone *preferred_zone)
{
	struct zone *zone = ((struct pglist_data *)host(preferred_zone->zone_pgdat))->node_zones;

	for (; zone <= preferred_zone; zone++) {
		__mod_zone_page_state(zone, NR_ALLOC_BATCH, zone->watermark[WMARK_HIGH] - zone->watermark[WMARK_LOW] -
				      zone->vm_stat[NR_ALLOC_BATCH]);
		zone->flags &= ~(1UL << ZONE_FAIR_DEPLETED);
	}
}

static struct page *get_page_from_freelist(u32 gfp_mask, unsigned int order, int alloc_flags,
					   const struct alloc_context *ac)
{
	struct zonelist *zonelist = ac->zonelist;
	bool zlc_active = false;
	bool did_zlc_setup = false;
	bool rescan;

	do {
		int nr_fair_skipped = 0;
		struct zoneref *z;
		struct zone *zone;

		rescan = false;
		for_each_zone_zonelist(zone, z, zonelist, ac->high_zoneidx) {
			u64 mark = zone->watermark[alloc_flags & (ALLOC_NO_WATERMARKS - 1)];

			if (zlc_active && !zlc_zone_worth_trying(zonelist, z))
				continue;
			if (alloc_flags & ALLOC_FAIR) {
				if (zone->node != ac->preferred_zone->node)
					break;
				if (zone->flags & 1UL << ZONE_FAIR_DEPLETED) {
					nr_fair_skipped++;
					continue;
				}
			}
			if (likely(zone_watermark_ok(zone, order, mark, ac->classzone_idx, alloc_flags)) ||
			    alloc_flags & ALLOC_NO_WATERMARKS) {
				struct page *page;

				while ((page = buffered_rmqueue(ac->preferred_zone, zone, order, gfp_mask,
								ac->migratetype)))
					if (likely(prep_new_page(page, order, gfp_mask, alloc_flags)))
						return page;
			} else if (!did_zlc_setup && *machine.nr_online_nodes > 1) {
				zlc_setup(zonelist);
				zlc_active = true;
				did_zlc_setup = true;
			}
			if (zlc_active)
				zlc_mark_zone_full(zonelist, z);
		}

		if (alloc_flags & ALLOC_FAIR) {
			alloc_flags &= ~ALLOC_FAIR;
			if (nr_fair_skipped)
				reset_alloc_batches(ac->preferred_zone);
			rescan = nr_fair_skipped || *machine.nr_online_nodes > 1;
		}
		if (zlc_active) {
			zlc_active = false;
			rescan = true;
		}
	} while (rescan);
	return NULL;
}

/* ---- the slow path, as far as it goes without waiting ---- */

/* Near the mark the CPUs' differentials may hide a shortage: add them up. */
static bool zone_watermark_ok_safe(const struct zone *zone, unsigned int order, u64 mark, int classzone_idx)
{
	s64 free_pages = zone_page_state(zone, NR_FREE_PAGES);

	if (zone->percpu_drift_mark && free_pages < (s64)zone->percpu_drift_mark) {
		free_pages = zone->vm_stat[NR_FREE_PAGES];
		for (u64 cpu = 0; cpu < NR_CPUS; cpu++)
			if (cpu_online(cpu))
				free_pages += ((struct per_cpu_pageset *)per_cpu_ptr(zone->pageset, cpu))
						->vm_stat_diff[NR_FREE_PAGES];
		if (free_pages < 0)
			free_pages = 0;
	}
	return __zone_watermark_ok(zone, order, mark, classzone_idx, 0, free_pages);
}

/*
 * A balanced zone needs no kswapd.  zone_balanced() goes on to ask compaction_suitable(), which
 * never skips a zone above its low watermark: left out, as here the zone is above the high one.
 */
static void wakeup_kswapd(struct zone *zone, int order, u32 classzone_idx)
{
	struct pglist_data *pgdat = host(zone->zone_pgdat);
	struct __wait_queue_head *wait = &pgdat->kswapd_wait;

	if (!zone->present_pages)
		return;
	if (pgdat->kswapd_max_order < order) {
		pgdat->kswapd_max_order = order;
		if (classzone_idx < pgdat->classzone_idx)
			pgdat->classzone_idx = classzone_idx;
	}
	if (list_empty(&wait->task_list))
		return;
	if (zone_watermark_ok_safe(zone, order, zone->watermark[WMARK_HIGH], 0))
		return;
	/* kswapd, the one waiter, leaves the queue as it is woken; its stack is in no image. */
	spin_lock(wait->lock);
	INIT_LIST_HEAD(&wait->task_list);
	spin_unlock(wait->lock);
}

static void wake_all_kswapds(unsigned int order, const struct alloc_context *ac)
{
	struct zoneref *z;
	struct zone *zone;

	for_each_zone_zonelist(zone, z, ac->zonelist, ac->high_zoneidx)
		wakeup_kswapd(zone, order, zone_idx(ac->preferred_zone));
}

static int gfp_to_alloc_flags(u32 gfp_mask)
{
	int alloc_flags = ALLOC_WMARK_MIN | ALLOC_CPUSET | (gfp_mask & __GFP_HIGH);

	if (!(gfp_mask & (__GFP_WAIT | __GFP_NO_KSWAPD))) {
		if (!(gfp_mask & __GFP_NOMEMALLOC))
			alloc_flags |= ALLOC_HARDER;
		alloc_flags &= ~ALLOC_CPUSET;
	}
	if (gfp_mask & __GFP_MEMALLOC && !(gfp_mask & __GFP_NOMEMALLOC))
		alloc_flags |= ALLOC_NO_WATERMARKS;
	if (gfpflags_to_migratetype(gfp_mask) == MIGRATE_MOVABLE)
		alloc_flags |= ALLOC_CMA;
	return alloc_flags;
}

static struct page *__alloc_pages_slowpath(u32 gfp_mask, unsigned int order, struct alloc_context *ac)
{
	struct page *page;
	int alloc_flags;

	if (order >= MAX_ORDER || (gfp_mask & GFP_THISNODE) == GFP_THISNODE)
		return NULL;
	if (!(gfp_mask & __GFP_NO_KSWAPD))
		wake_all_kswapds(order, ac);
	/* The kernel looks up the preferred zone again here: without cpusets it is the same. */
	alloc_flags = gfp_to_alloc_flags(gfp_mask);
	page = get_page_from_freelist(gfp_mask, order, alloc_flags & ~ALLOC_NO_WATERMARKS, ac);
	if (!page && alloc_flags & ALLOC_NO_WATERMARKS) {
		ac->zonelist = node_zonelist(numa_node_id(), gfp_mask);
		page = get_page_from_freelist(gfp_mask, order, ALLOC_NO_WATERMARKS, ac);
	}
	if (!page && gfp_mask & __GFP_WAIT)
		unsupported = true;
	return page;
}

/* read_seqcount_begin(): odd while the allowed nodes are changed, by nobody here. */
static u32 read_mems_allowed_begin(void)
{
	u32 cookie = *(const volatile u32 *)&machine.current->mems_allowed_seq;

	if (unlikely(cookie & 1))
		unsupported = true;
	return cookie;
}

static bool read_mems_allowed_retry(u32 cookie)
{
	return unlikely(*(const volatile u32 *)&machine.current->mems_allowed_seq != cookie);
}

static bool should_fail_alloc_page(u32 gfp_mask, unsigned int order)
{
	const struct fail_page_alloc *attr = machine.fail_page_alloc;

	if (!attr || order < attr->min_order || gfp_mask & __GFP_NOFAIL)
		return false;
	if (attr->ignore_gfp_highmem && gfp_mask & __GFP_HIGHMEM)
		return false;
	if (attr->ignore_gfp_wait && gfp_mask & __GFP_WAIT)
		return false;
	if (unlikely(attr->probability))
		unsupported = true;
	return false;
}

static struct page *__alloc_pages_nodemask(u32 gfp_mask, unsigned int order, struct zonelist *zonelist)
{
	int alloc_flags = ALLOC_WMARK_LOW | ALLOC_CPUSET | ALLOC_FAIR;
	struct alloc_context ac = {
		.zonelist = zonelist,
		.high_zoneidx = gfp_zone(gfp_mask),
		.migratetype = gfpflags_to_migratetype(gfp_mask),
	};
	struct zoneref *preferred;
	struct page *page;
	u32 cookie;

	gfp_mask &= *machine.gfp_allowed_mask;
	if (should_fail_alloc_page(gfp_mask, order) || unlikely(!zonelist->_zonerefs->zone))
		return NULL;
	if (ac.migratetype == MIGRATE_MOVABLE)
		alloc_flags |= ALLOC_CMA;
	do {
		cookie = read_mems_allowed_begin();
		page = NULL;
		preferred = first_zones_zonelist(zonelist, ac.high_zoneidx, machine.current->mems_allowed);
		ac.preferred_zone = zonelist_zone(preferred);
		if (unlikely(!ac.preferred_zone))
			continue;
		ac.classzone_idx = preferred->zone_idx;
		page = get_page_from_freelist(gfp_mask | __GFP_HARDWALL, order, alloc_flags, &ac);
		if (unlikely(!page)) {
			page = __alloc_pages_slowpath(gfp_mask, order, &ac);
			ac.zonelist = zonelist;
		}
	} while (unlikely(!page && read_mems_allowed_retry(cookie)));
	return page;
}

static struct page *alloc_pages_node(int nid, u32 gfp_mask, unsigned int order)
{
	if (nid < 0)
		nid = numa_node_id();
	return __alloc_pages_nodemask(gfp_mask, order, node_zonelist(nid, gfp_mask));
}

/* ---- page scripts ---- */

struct op {
	s64 code, id, arg1, arg2, arg3;	/* the letter, then the script's columns */
};

struct result {
	s64 pfn, order, migratetype, count;
};

/* Everything is checked before a replay, nothing during one. */
static bool op_ok(const struct op *op, u64 npages)
{
	u64 id = op->id;

	switch (op->code) {
	case 'd': case 'D':
		return true;
	case 'c': case 'g': case 'p':
		return id < npages;
	case 'f': case 'F':
		return id < npages && (u64)op->arg1 < MAX_ORDER;
	case 'S':
		return id < npages && (u64)op->arg1 < MAX_ORDER && (u64)op->arg2 < npages &&
		       1UL << op->arg1 <= npages - op->arg2;
	case 'a':
		return id < npages && op->arg1 < MAX_NUMNODES && (op->arg1 < 0 || machine.node_data[op->arg1]) &&
		       (u64)op->arg2 < MAX_ORDER && !(op->arg3 & __GFP_WRITE) &&
		       (op->arg3 & GFP_MOVABLE_MASK) != GFP_MOVABLE_MASK;
	}
	return false;
}

static s64 first_bad(const struct op *ops, s64 nops, u64 npages)
{
	s64 i = 0;

	while (i < nops && op_ok(&ops[i], npages))
		i++;
	return i;
}

static s64 run(const struct op *ops, s64 nops, struct page **pages, struct result *results)
{
	unsupported = false;
	for (const struct op *op = ops; op < ops + nops; op++) {
		struct page *page = NULL;
		s64 order = 0;

		if (op->code != 'a' && op->code != 'd' && op->code != 'D') {
			page = pages[op->id];
			if (op->code == 'f' || op->code == 'F' || op->code == 'S')
				order = op->arg1;
			if (!page)
				goto done;
		}
		switch (op->code) {
		case 'a':
			order = op->arg2;
			page = pages[op->id] = alloc_pages_node(op->arg1, op->arg3, order);
			break;
		case 'f':
			__free_pages(page, order);
			break;
		case 'F':
			free_pages(page_address(page), order);
			break;
		case 'c':
			if (put_page_testzero(page))
				free_hot_cold_page(page, true);
			break;
		case 'g':
			get_page(page);
			break;
		case 'p':
			put_page(page);
			break;
		case 'S':
			split_page(page, order);
			for (int i = 0; i < 1 << order; i++)
				pages[op->arg2 + i] = page + i;
			break;
		case 'd':
			drain_local_pages();
			break;
		case 'D':
			drain_all_pages();
			break;
		}
		if (unlikely(unsupported))
			return op - ops;
done:
		if (results) {
			*results = (struct result){ -1, order, -1, -1 };
			if (page) {
				results->pfn = page_to_pfn(page);
				results->migratetype = get_pfnblock_migratetype(results->pfn);
				results->count = page->_count;
			}
			results++;
		}
	}
	return nops;
}

/* ---- what reference.py calls ---- */

/* A stretch of RAM that a replay writes, and a copy of it from before. */
struct range {
	u8 *place;
	const u8 *saved;
	u64 size;
};

/*
 * Run ops[0..nops) once.  pages has a slot for every id, results (may be NULL)
 * one record for every operation.  Returns the operations done: less than nops
 * if one is malformed (then none is done) or needs what is not here.
 */
s64 ref_replay(const struct machine *m, const struct op *ops, s64 nops, struct page **pages, u64 npages,
	       struct result *results)
{
	s64 valid;

	machine = *m;
	valid = first_bad(ops, nops, npages);
	return valid < nops ? valid : run(ops, nops, pages, results);
}

/*
 * As ref_replay(), repeat times, each from the saved bytes; nanoseconds[i] is the
 * time of the i-th, with checks and restoring left out.
 */
s64 ref_time(const struct machine *m, const struct op *ops, s64 nops, struct page **pages, u64 npages,
	     const struct range *ranges, u64 nranges, s64 repeat, s64 *nanoseconds)
{
	s64 done;

	machine = *m;
	done = first_bad(ops, nops, npages);
	if (done < nops)
		return done;
	for (s64 i = 0; i < repeat && done == nops; i++) {
		struct timespec start, end;

		for (u64 j = 0; j < nranges; j++)
			memcpy(ranges[j].place, ranges[j].saved, ranges[j].size);
		memset(pages, 0, npages * sizeof(*pages));
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
		done = run(ops, nops, pages, NULL);
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
		nanoseconds[i] = (end.tv_sec - start.tv_sec) * 1000000000L + (end.tv_nsec - start.tv_nsec);
	}
	return done;
}
