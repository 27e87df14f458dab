# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's command line: the parameters that shape memory, and what becomes of the others.

Each parameter has a function, named as in the kernel (``early_param``, ``__setup``), which is given the machine as
configured so far and the parameter's value, and returns what changes.  What is meant for somebody else (``root=``,
``quiet``) is told to the log, as Linux does from 5.14 on, and passed over.  Facts: init/main.c (``parse_early_param``),
mm/page_alloc.c, arch/x86/kernel/e820.c, arch/x86/mm/numa.c and numa_emulation.c of Linux 4.0; ``kernelcore=10%``
is from 4.18.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kernelmm.bringup.sysctl import ZONELIST_ORDERS, parse_numa_zonelist_order
from physmem.e820 import Kind, MemoryMap, parse_size
from physmem.errors import UsageError

if TYPE_CHECKING:
    from kernelmm.boot import BootConfig

__all__ = ["COMMAND_LINE_SIZE", "PARAMETERS", "parse_early_param"]

#: Bytes of a command line on x86, with its final NUL.
COMMAND_LINE_SIZE = 2048

#: ``name``, ``name=value``, ``name="a value with blanks"``, each up to the next blank.
_PARAMETER = r'(?:[^\s"]|"[^"]*")+'
#: What kstrtoint takes.
_INT = r"(?ai)(?P<sign>[+-]?)(?:0x(?P<hex>[0-9a-f]{1,8})|0(?P<octal>[0-7]{1,11})|(?P<decimal>0|[1-9][0-9]{0,9}))"
_PERCENT = r"(?a)([0-9]{1,3})%"
_MEMMAP = r"(?a)(?P<size>\w+)(?P<kind>[@#$])(?P<start>\w+)"
_MEMMAP_KINDS = {"@": Kind.RAM, "#": Kind.ACPI, "$": Kind.RESERVED}


def parse_early_param(config: BootConfig, text: str) -> tuple[BootConfig, list[str]]:
    """``parse_early_param``: a machine whose kernel has this command line.

    A later parameter overrides an earlier one; those that shape memory (``mem=``) come first wherever they are, so
    that a percentage is of what is left.

    :returns: the machine, and the parameters that are not the page allocator's
    :raises UsageError: a value that cannot be; names the parameter
    """
    if len(text.encode()) >= COMMAND_LINE_SIZE:
        raise UsageError(f"the command line has {len(text.encode())} bytes: at most {COMMAND_LINE_SIZE - 1} fit")
    if not text.isprintable():
        raise UsageError("the command line has characters that cannot be printed")
    told = [_split(each) for each in re.findall(_PARAMETER, text.split(" -- ")[0])]
    unknown = [f"{name}={value}" if value else name for name, value in told if name not in PARAMETERS]
    for name in PARAMETERS:
        for value in (value for other, value in told if other == name):
            try:
                config = replace(config, **PARAMETERS[name](config, value))
            except UsageError as error:
                raise UsageError(f"{name}={value[:40]}: {error}" if value else f"{name}: {error}") from None
    return config, unknown


def _split(parameter: str) -> tuple[str, str]:
    """Name and value; in names, dashes are underscores, but not in values."""
    name, _, value = parameter.replace('"', "").partition("=")
    return name.replace("-", "_"), value


# -- how much memory --------------------------------------------------------------


def parse_memopt(config: BootConfig, value: str) -> dict[str, Any]:
    """``mem=``: no RAM from this physical address on."""
    limit = parse_size(value)
    if not limit:
        raise UsageError("no memory at all")
    return {"mem": limit if not config.mem else min(limit, config.mem)}


def parse_memmap_opt(config: BootConfig, value: str) -> dict[str, Any]:
    """``memmap=``: ``SIZE@START`` is RAM, with ``#`` ACPI data, with ``$`` reserved; a ``SIZE`` alone is ``mem=``."""
    memory = config.memory
    for each in value.split(","):
        if (match := re.fullmatch(_MEMMAP, each)) is None:
            return parse_memopt(config, each)
        start, size = parse_size(match["start"]), parse_size(match["size"])
        memory = memory.marked(start, start + size, _MEMMAP_KINDS[match["kind"]])
    return {"memory": memory}


def numa_setup(config: BootConfig, value: str) -> dict[str, Any]:
    """``numa=off``: one node; ``numa=fake=N``: N nodes, whatever the firmware says."""
    if value == "off":
        return {"memory": MemoryMap.of(config.memory.regions)}
    if (count := value.removeprefix("fake=")) != value and count.isascii() and count.isdigit() and len(count) < 5:
        return {"memory": MemoryMap.of(config.memory.regions, int(count))}
    raise UsageError("there are off and fake=N")


# -- whose memory -----------------------------------------------------------------


def cmdline_parse_core(config: BootConfig, value: str) -> int:
    """``cmdline_parse_core``: bytes, or percent of the memory that the kernel has."""
    if match := re.fullmatch(_PERCENT, value):
        if int(match[1]) > 100:
            raise UsageError("more than all")
        memory = config.memory.limited(config.mem) if config.mem else config.memory
        return memory.usable.total() * int(match[1]) // 100
    return parse_size(value)


def cmdline_parse_kernelcore(config: BootConfig, value: str) -> dict[str, Any]:
    """``kernelcore=``: for the kernel; the rest of each node is ZONE_MOVABLE."""
    return {"kernelcore": cmdline_parse_core(config, value)}


def cmdline_parse_movablecore(config: BootConfig, value: str) -> dict[str, Any]:
    """``movablecore=``: for ZONE_MOVABLE."""
    return {"movablecore": cmdline_parse_core(config, value)}


def early_cma(config: BootConfig, value: str) -> dict[str, Any]:
    """``cma=SIZE``, ``SIZE@BASE`` (just there), ``SIZE@BASE-LIMIT`` (between): for contiguous allocations."""
    size, at, place = value.partition("@")
    base, to, limit = place.partition("-")
    area = {"cma": parse_size(size), "cma_base": parse_size(base) if at else 0, "cma_limit": 0}
    if at:
        area["cma_limit"] = parse_size(limit) if to else area["cma_base"] + area["cma"]
    return area


# -- how it is managed ------------------------------------------------------------


def setup_numa_zonelist_order(config: BootConfig, value: str) -> dict[str, Any]:
    """``numa_zonelist_order=``: which zones are next."""
    order = parse_numa_zonelist_order(value)
    return {"zonelist_order": next(name for name, number in ZONELIST_ORDERS.items() if number == order)}


def set_hashdist(config: BootConfig, value: str) -> dict[str, Any]:
    """``hashdist=``: whether large hash tables are spread over the nodes; 1 on 64 bits."""
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise UsageError("not a number")
    return {"hashdist": int(value)}


def nr_cpus(config: BootConfig, value: str) -> dict[str, Any]:
    """``nr_cpus=``: at most so many CPUs."""
    if not value.isascii() or not value.isdigit() or not 0 < int(value[:9]) < 1 << 16:
        raise UsageError("not a number of CPUs")
    return {"cpus": min(config.cpus, int(value))}


def parse_direct_gbpages_off(config: BootConfig, value: str) -> dict[str, Any]:
    """``nogbpages``: no pages of 1 GiB in the direct map."""
    return {"gbpages": False}


def parse_direct_gbpages_on(config: BootConfig, value: str) -> dict[str, Any]:
    """``gbpages``: pages of 1 GiB in the direct map."""
    return {"gbpages": True}


# -- debugging aids ---------------------------------------------------------------


def early_debug_pagealloc_param(config: BootConfig, value: str) -> dict[str, Any]:
    """``debug_pagealloc=on``: what is free has no mapping."""
    return {"debug": replace(config.debug, debug_pagealloc=value == "on")}


def debug_guardpage_minorder_param(config: BootConfig, value: str) -> dict[str, Any]:
    """``debug_guardpage_minorder=``: smaller blocks stay idle beside used ones."""
    if not value.isascii() or not value.isdigit() or len(value) > 2:
        raise UsageError("not an order")
    return {"debug": replace(config.debug, guardpage_minorder=int(value))}


def early_page_owner_param(config: BootConfig, value: str) -> dict[str, Any]:
    """``page_owner=on``: note who allocates a page."""
    return {"debug": replace(config.debug, page_owner=value == "on")}


def param_kmemcheck(config: BootConfig, value: str) -> dict[str, Any]:
    """``kmemcheck=``: which bytes were written is watched from the start (1), until the first error (2), or not (0)."""
    if (match := re.fullmatch(_INT, value)) is None:
        raise UsageError("not a number")
    base = 16 if match["hex"] else 8 if match["octal"] else 10
    number = int(match["hex"] or match["octal"] or match["decimal"], base)
    return {"debug": replace(config.debug, kmemcheck=-number if match["sign"] == "-" else number)}


def fail_page_alloc_param(config: BootConfig, value: str) -> dict[str, Any]:
    """``fail_page_alloc=interval,probability,space,times``."""
    return {"fail_page_alloc": value}


#: By name, in the order in which they take effect.
PARAMETERS: dict[str, Callable[[BootConfig, str], dict[str, Any]]] = {
    "memmap": parse_memmap_opt,
    "mem": parse_memopt,
    "numa": numa_setup,
    "kernelcore": cmdline_parse_kernelcore,
    "movablecore": cmdline_parse_movablecore,
    "cma": early_cma,
    "numa_zonelist_order": setup_numa_zonelist_order,
    "hashdist": set_hashdist,
    "nr_cpus": nr_cpus,
    "nogbpages": parse_direct_gbpages_off,
    "gbpages": parse_direct_gbpages_on,
    "debug_pagealloc": early_debug_pagealloc_param,
    "debug_guardpage_minorder": debug_guardpage_minorder_param,
    "page_owner": early_page_owner_param,
    "kmemcheck": param_kmemcheck,
    "fail_page_alloc": fail_page_alloc_param,
}
