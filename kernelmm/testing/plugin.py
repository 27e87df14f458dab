# SPDX-License-Identifier: GPL-2.0-only
"""A pytest plugin: the fixture ``machine``, which fails a test that leaks pages, frees wrongly or damages memory.

::

    @pytest.mark.machine(memory="64M", nodes=2, leaks="allowed")
    def test_something(machine):
        page = machine.alloc_pages(GFP_KERNEL)

Arguments of the marker: ``memory``, ``nodes``, ``cpus`` and the other options of :meth:`Machine.boot`; ``image``, to
attach to a memory image in place of booting; ``debug_vm`` (default True), the kernel's assertions; ``leaks``
(``"forbidden"`` or ``"allowed"``); ``check`` (default True), whether ``physmem check`` must be clean at the end.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from physmem.errors import PhysmemError

if TYPE_CHECKING:
    from kernelmm.testing.watched import WatchedMachine

__all__ = ["machine", "pytest_configure", "pytest_runtest_call"]

_KEY: pytest.StashKey[tuple[WatchedMachine, dict[str, Any]]] = pytest.StashKey()
_LEAKS = ("forbidden", "allowed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``machine_memory``: what machines have that do not say it themselves."""
    parser.addini("machine_memory", "memory of the fixture 'machine', unless its marker says otherwise", default="64M")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "machine(memory, nodes, cpus, image, debug_vm, leaks, check): of kernelmm")


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Generator[WatchedMachine, None, None]:
    """A machine of our own, watched: every page that the test allocates, it must free, and rightly."""
    from kernelmm.testing.watched import WatchedMachine  # imports hot rooms

    marker = request.node.get_closest_marker("machine")
    options: dict[str, Any] = dict(marker.kwargs) if marker else {}
    wanted = {name: options.pop(name, default) for name, default in (("leaks", "forbidden"), ("check", True))}
    if wanted["leaks"] not in _LEAKS:
        raise pytest.UsageError(f"machine(leaks={wanted['leaks']!r}): one of {', '.join(_LEAKS)}")
    debug_vm, image = options.pop("debug_vm", True), options.pop("image", None)
    if image is None:
        memory = options.pop("memory", request.config.getini("machine_memory"))
        watched = WatchedMachine.boot(memory, **options)
    else:
        watched = WatchedMachine.attach(image, **options)
    assert isinstance(watched, WatchedMachine)
    watched.debug_vm = debug_vm
    request.node.stash[_KEY] = watched, wanted
    with watched:
        yield watched


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """After the test itself: what it did to its machine.  A failure of the test's own comes first, and stays it."""
    try:
        result = yield
    except (Exception, pytest.fail.Exception):
        report = _report(item)
        if report:
            item.add_report_section("call", "machine", f"what the test did to its machine, until it failed\n{report}")
        raise
    report = _report(item)
    if report:
        pytest.fail(report, pytrace=False)
    return result


def _report(item: pytest.Item) -> str:
    """What is wrong with a test's machine; empty if nothing is, or it has none."""
    if _KEY not in item.stash:
        return ""
    watched, wanted = item.stash[_KEY]
    try:
        return watched.report(leaks=wanted["leaks"] == "forbidden", check=wanted["check"])
    except PhysmemError as error:
        return f"its memory is too damaged to be looked at: {error}"
