# SPDX-License-Identifier: GPL-2.0-only
"""Images looked at by the workers of a Dask cluster, which see the same files under the same names."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from physmem.errors import UnsupportedError, UsageError
from physmem.fleet.find import Found
from physmem.fleet.record import Options, Record, look_at

__all__ = ["on_cluster"]


def on_cluster(
    images: Iterable[Found], options: Options, scheduler: str | Any, timeout: float = 30.0
) -> Iterator[Record]:
    """Look at images on a Dask cluster; records come as they are ready.

    :param scheduler: its address (``tcp://HOST:PORT``, or the name of a scheduler file), or a cluster object
    :param timeout: seconds to wait for the scheduler, and for a worker
    :raises UnsupportedError: Dask is not installed
    :raises UsageError: there is no scheduler, no worker, or they do not have this version of physmem
    """
    try:
        distributed = importlib.import_module("distributed")
    except ImportError:
        raise UnsupportedError("--scheduler needs Dask: pip install 'physmem[fleet]'") from None
    by_file = isinstance(scheduler, str) and scheduler.endswith(".json")
    where = {"scheduler_file": scheduler} if by_file else {"address": scheduler}
    try:
        client = distributed.Client(**where, timeout=timeout, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"no Dask scheduler at {scheduler}: {error}") from None
    with client:
        _require_same(client, scheduler, timeout)
        futures = {client.submit(look_at, found, options, pure=False): found for found in images}
        for future in distributed.as_completed(list(futures), loop=client.loop):
            found = futures.pop(future)
            try:
                yield future.result()
            except Exception as error:
                yield Record.failed(found, f"{type(error).__name__}: {error}")
            future.release()


def _form() -> tuple[str, ...]:
    """What a record is made of, which tells one version from another."""
    return tuple(field.name for field in fields(Record))


def _require_same(client: Any, scheduler: object, timeout: float) -> None:
    """Refuse workers that would fail at every image for the same reason, and a cluster that never gets any."""
    future = client.submit(_form, pure=False)
    try:
        theirs = future.result(timeout=timeout)
    except TimeoutError:
        future.cancel()
        raise UsageError(f"no worker of the Dask scheduler at {scheduler} answers within {timeout:g} seconds") from None
    except Exception as error:
        raise UsageError(f"the workers of {scheduler} cannot run physmem: {error}") from None
    if theirs != _form():
        raise UsageError(f"the workers of {scheduler} have another version of physmem")
