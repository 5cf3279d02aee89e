"""Non-maximum suppression."""

from __future__ import annotations

import numpy as np

from sd_mil.engines.reference.registry import Array, check_counts, op
from sd_mil.ir.limits import check_computed


@op("non_maximum_suppression")
def non_maximum_suppression(
    boxes: Array,
    scores: Array,
    iou_threshold: Array,
    max_boxes: Array,
    score_threshold: Array | None = None,
    per_class_suppression: Array | bool = False,
) -> tuple[Array, ...]:
    """The best boxes that do not overlap better ones: boxes, scores, indices, and how many there are.

    Up to iOS 16 there is a ``score_threshold`` and boxes are [N, B, 4], scores [N, B, K]; from iOS 17 on
    boxes are [N, 4, B], scores [N, K, B], and the fourth output is missing. Boxes are centre x, centre y,
    width, height. A box's class is that of its best score. What is not filled is 0, or -1 for indices.
    """
    if score_threshold is None:
        found = _suppressed(
            boxes.swapaxes(1, 2), scores.swapaxes(1, 2), iou_threshold, max_boxes, None, per_class_suppression
        )
        return found[0].swapaxes(1, 2), found[1].swapaxes(1, 2), found[2]
    return _suppressed(boxes, scores, iou_threshold, max_boxes, score_threshold, per_class_suppression)


def _suppressed(
    boxes: Array,
    scores: Array,
    iou_threshold: Array,
    max_boxes: Array,
    score_threshold: Array | None,
    per_class: Array | bool,
) -> tuple[Array, Array, Array, Array]:
    count, room = len(boxes), int(max_boxes)
    check_counts("max_boxes", room)
    check_computed(count, room, max(4, scores.shape[2]))
    kept_boxes = np.zeros((count, room, 4), np.float32)
    kept_scores = np.zeros((count, room, scores.shape[2]), np.float32)
    indices = np.full((count, room), -1, np.int32)
    numbers = np.zeros(count, np.int32)
    for image in range(count):
        chosen = _chosen(
            boxes[image], scores[image], float(iou_threshold), score_threshold, room, bool(per_class)
        )
        numbers[image] = len(chosen)
        kept_boxes[image, : len(chosen)] = boxes[image][chosen]
        kept_scores[image, : len(chosen)] = scores[image][chosen]
        indices[image, : len(chosen)] = chosen
    return kept_boxes, kept_scores, indices, numbers


def _chosen(
    boxes: Array, scores: Array, overlap: float, threshold: Array | None, room: int, per_class: bool
) -> list[int]:
    best, classes = scores.max(axis=1), scores.argmax(axis=1)
    order = np.argsort(-best, kind="stable")
    if threshold is not None:
        order = order[best[order] >= threshold]
    chosen: list[int] = []
    for index in order.tolist():
        rivals = [one for one in chosen if not per_class or classes[one] == classes[index]]
        if not rivals or _overlaps(boxes[index], boxes[rivals]).max() <= overlap:
            chosen.append(index)
        if len(chosen) == room:
            break
    return chosen


def _overlaps(box: Array, others: Array) -> Array:
    """Intersection over union; 0 for boxes without area."""
    low, high = box[:2] - box[2:] / 2, box[:2] + box[2:] / 2
    lows, highs = others[:, :2] - others[:, 2:] / 2, others[:, :2] + others[:, 2:] / 2
    shared = np.clip(np.minimum(high, highs) - np.maximum(low, lows), 0, None).prod(axis=1)
    union = box[2:].prod() + others[:, 2:].prod(axis=1) - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0)
