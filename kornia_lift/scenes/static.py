"""Images of a camera that never moves, in the layout of the Webcam data set (TILDE, CVPR 2015)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from kornia_lift.scenes.homographies import HomographySequence
from kornia_lift.scenes.images import IMAGE_SUFFIXES
from kornia_lift.scenes.scene import Pair


class StaticSequence(HomographySequence):
    """Images of one view under changing illumination; the homography between any two is the identity."""

    @classmethod
    def load(cls, folder: str | Path, *, name: str | None = None, all_pairs: bool = False) -> StaticSequence:
        """Read ``SCENE/test/image_color/*`` (Webcam), or simply all images of a folder.

        Args:
            folder: scene folder.
            name: name of the scene; the folder's name by default.
            all_pairs: every pair; by default image k with image k + n/2 of the sorted list, as in the benchmark of
                the LIFT authors.

        Raises:
            FileNotFoundError: if there are fewer than two images.
            ValueError: if two images differ in the suffix only.
        """
        scene = Path(folder)
        candidates = (scene / "test" / "image_color", scene / "image_color", scene / "test", scene)
        found: list[Path] = []
        for root in candidates:
            found = sorted(p for p in root.glob("*") if p.suffix in IMAGE_SUFFIXES)
            if found:
                break
        if len(found) < 2:
            raise FileNotFoundError(f"{scene} holds fewer than two images (looked in test/image_color and the folder)")
        repeated = [stem for stem, count in Counter(p.stem for p in found).items() if count > 1]
        if repeated:
            raise ValueError(f"{scene} holds two images called {repeated[0]!r}: remove or rename one")
        n = len(found)
        pairs = [Pair(i, j) for i in range(n) for j in range(i + 1, n)] if all_pairs else []
        pairs = pairs or [Pair(k, k + n // 2) for k in range(n // 2)]
        return cls(
            name=name or scene.resolve().name,
            root=found[0].parent,
            names=tuple(p.stem for p in found),
            homographies=(np.eye(3),) * n,
            pairs=tuple(pairs),
        )
