"""Stores of a limited size on disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from kornia_lift.training.data.store import CAMERA_PARAMS, Store


def pack_stores(stores: Sequence[Store], limit: int) -> list[list[Store]]:
    """Group stores into as few files of at most ``limit`` bytes as a first fit of the largest first finds.

    Raises:
        ValueError: if one store alone is larger.

    """
    packs: list[list[Store]] = []
    for store in sorted(stores, key=store_bytes, reverse=True):
        if store_bytes(store) > limit:
            raise ValueError(f"the store of {store.names[0]!r} has {store_bytes(store)} bytes, the limit is {limit}")
        for pack in packs:
            if sum(map(store_bytes, pack)) + store_bytes(store) <= limit:
                pack.append(store)
                break
        else:
            packs.append([store])
    return packs


def store_bytes(store: Store) -> int:
    """Size of a store on disk, rounded up."""
    tables = sum(getattr(t, f.name).nbytes for t in (store.tracks, store.empty) for f in dataclasses.fields(t))
    longest = max((len(i.name) + len(i.scene) for i in store.images), default=0)
    per_image = 4 * longest + 16 + 8 * (CAMERA_PARAMS + 12) + 8 + 100  # names, ends, camera
    counts = 4 * len(json.dumps({k: dict(v) for k, v in store.counts.items()}))
    return sum(len(i.jpeg) + per_image for i in store.images) + tables + counts + 16 * 1024  # headers of the parts
