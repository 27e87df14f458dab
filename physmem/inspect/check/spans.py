# SPDX-License-Identifier: GPL-2.0-only
"""Rules about nodes and zones: where they say they are, and what they say they have."""

from __future__ import annotations

from physmem.inspect.check.report import Report
from physmem.inspect.check.subject import Subject
from physmem.inspect.zones import Node

__all__ = ["RULES", "check_spans"]

RULES = {
    "node_data": "the table of nodes names each node once",
    "node_span": "a node lies in physical memory, and its zones lie in the node",
    "node_pages": "the pages present in a node's zones are those present in the node",
    "zone_identity": "a node or zone names the node whose it is",
    "zone_order": "the zones of a node follow each other without overlap",
    "zone_pages": "a zone manages no more pages than are present, and those are no more than it spans",
    "watermark_order": "a zone's watermarks are min, low, high in ascending order",
}


def check_spans(subject: Subject, report: Report) -> None:
    """Every rule of this room."""
    top = subject.dump.max_pfn  # raises if a node reaches beyond physical memory
    for node in subject.nodes:
        _check_node(node, report)
        end = 0
        for zone in node.zones:
            if zone.node_field not in (None, node.id) or zone.pgdat != node.address:
                report.add("zone_identity", f"{zone} says node {zone.node_field}, pgdat {zone.pgdat:#x}")
            if not zone.populated:
                continue
            if not node.start_pfn <= zone.start_pfn <= zone.end_pfn <= min(node.start_pfn + node.spanned, top):
                span = f"pfn {zone.start_pfn}-{zone.end_pfn - 1}"
                report.add("node_span", f"{zone} spans {span}, outside of the node")
            if zone.start_pfn < end:
                report.add("zone_order", f"{zone} begins at pfn {zone.start_pfn}, the one before ends at {end - 1}")
            end = max(end, zone.end_pfn)
            if not zone.managed <= zone.present <= zone.spanned:
                counts = f"{zone.managed} managed, {zone.present} present, {zone.spanned} spanned"
                report.add("zone_pages", f"{zone}: {counts}")
            if list(zone.watermark) != sorted(zone.watermark):
                report.add("watermark_order", f"{zone}: {', '.join(map(str, zone.watermark))}")


def _check_node(node: Node, report: Report) -> None:
    if node.id_field != node.id:
        report.add("zone_identity", f"node {node.id} says that it is node {node.id_field}")
    present = sum(zone.present for zone in node.zones)
    if present != node.present:
        report.add("node_pages", f"node {node.id}: {node.present} pages present, {present} in its zones")
