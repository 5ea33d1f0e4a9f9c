"""Signs of progress while a stage is prepared."""

from __future__ import annotations

from kornia_lift.training.watch import Watch


def test_says_how_many_are_done_at_most_as_often_as_asked() -> None:
    said: list[str] = []
    seconds = iter([0.0, 5.0, 20.0, 20.0, 30.0, 41.0, 41.0, 45.0])  # read twice where something is said
    watch = Watch(said.append, every=20.0, clock=lambda: next(seconds))
    assert list(watch("abcde", "images")) == list("abcde")
    assert said == ["1 of 5 images", "3 of 5 images"]


def test_is_silent_for_short_work_and_without_a_listener() -> None:
    said: list[str] = []
    assert list(Watch(said.append)(range(3), "images")) == [0, 1, 2]
    assert said == []
    assert list(Watch(every=0.0)([1, 2], "images")) == [1, 2]
