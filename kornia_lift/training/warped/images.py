"""The images of a data set that pairs of crops are cut from."""

from __future__ import annotations

from torch import Tensor

from kornia_lift.training.data.store import Store


def aligned_images(store: Store) -> list[list[Tensor]]:
    """Return the images from which pairs of crops are cut, uint8; the exposures of one scene belong together."""
    members: dict[str, list[int]] = {}
    for index, image in enumerate(store.images):
        members.setdefault(image.scene, []).append(index)
    groups: list[list[Tensor]] = []
    for indices in members.values():
        images = [store.decode(index) for index in indices]
        if store.images[indices[0]].kind != "exposures":
            # neighbours in a walk around a scene are alike: every second one is enough
            groups += [[image] for image in (images[::2] if len(images) > 4 else images)]
        else:
            # the two shortest and longest of many exposures hold too little that is not black or white
            groups += [images[2:-2] if len(images) > 6 else images] * 5
    return groups
