"""What the study counts beside F1: kinds of errors, recall by length and by familiarity, calibration, significance.

An entity is (first word, length in words, type). Only counts leave this file, never a word of a corpus.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

Entity = tuple[int, int, str]
ERRORS = ("correct", "type", "boundary", "type and boundary", "spurious", "missed")
LENGTHS = ("1", "2", "3", "4", "5+")


def sentence_counts(gold: Sequence[Iterable[Entity]], found: Sequence[Iterable[Entity]]) -> list[tuple[int, int, int]]:
    """(true positives, false positives, false negatives) of each sentence."""
    pairs = [(set(g), set(f)) for g, f in zip(gold, found, strict=True)]
    return [(len(g & f), len(f - g), len(g - f)) for g, f in pairs]


def error_kinds(gold: Sequence[Iterable[Entity]], found: Sequence[Iterable[Entity]]) -> dict[str, int]:
    """How many found entities are right, or wrong in what, and how many gold entities no found one touches (`missed`)."""
    kinds = Counter(dict.fromkeys(ERRORS, 0))
    for wanted, predicted in zip(gold, found, strict=True):
        types = {(begin, length): name for begin, length, name in wanted}
        for begin, length, name in predicted:
            touched = {kind for b, n, kind in wanted if b < begin + length and begin < b + n}
            if (begin, length) in types:
                kinds["correct" if types[begin, length] == name else "type"] += 1
            elif touched:
                kinds["boundary" if name in touched else "type and boundary"] += 1
            else:
                kinds["spurious"] += 1
        kinds["missed"] += sum(all(b >= x + y or x >= b + n for x, y, _ in predicted) for b, n, _ in wanted)
    return dict(kinds)


def length_name(length: int) -> str:
    """The row of `LENGTHS` that a length in words belongs to."""
    return LENGTHS[min(length, len(LENGTHS)) - 1]


def recall_by(groups: Sequence[Sequence[str]], gold: Sequence[Sequence[Entity]], found: Sequence[Iterable[Entity]]) -> dict:
    """{group: [found, all]} of gold entities; `groups` names the group of each, sentence by sentence."""
    counts: dict[str, list[int]] = {}
    for names, wanted, predicted in zip(groups, gold, found, strict=True):
        predicted = set(predicted)
        for name, entity in zip(names, wanted, strict=True):
            row = counts.setdefault(name, [0, 0])
            row[0] += entity in predicted
            row[1] += 1
    return dict(sorted(counts.items()))


def familiarity(
    sentences: Sequence[Sequence[str]], gold: Sequence[Sequence[Entity]], texts: Iterable[Sequence[str]]
) -> list[list[str]]:
    """ "seen" where an entity's words run on in one of the training texts (of either language), else "unseen"."""
    read = "\n".join("\t".join(["", *words, ""]) for words in texts)
    return [
        ["seen" if "\t".join(["", *words[b : b + n], ""]) in read else "unseen" for b, n, _ in entities]
        for words, entities in zip(sentences, gold, strict=True)
    ]


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> list[list[float]]:
    """[number, mean confidence, share that is right] of each of `bins` equal ranges of the confidence.

    Args:
        confidence: [spans] in [0, 1].
        right: bool [spans].
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    number = np.bincount(place, minlength=bins)
    means = [np.bincount(place, weights=x, minlength=bins) / np.maximum(number, 1) for x in (confidence, right)]
    return [[int(n), round(float(c), 4), round(float(r), 4)] for n, c, r in zip(number, *means, strict=True)]


def changes(groups: np.ndarray, gold: np.ndarray, before: np.ndarray, after: np.ndarray) -> dict[str, list[int]]:
    """{group: [stayed right, mended, broken, stayed wrong]} of labels before and after refinement; all arrays [spans]."""
    outcome = 2 * (before != gold) + (after != gold)  # right-right 0, right-wrong 1, wrong-right 2, wrong-wrong 3
    return {
        str(group): [int(((groups == group) & (outcome == kind)).sum()) for kind in (0, 2, 1, 3)] for group in np.unique(groups)
    }


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 in percent of counts [..., (true positives, false positives, false negatives)]."""
    true, wrong, missed = np.moveaxis(counts, -1, 0)
    return 100 * 2 * true / np.maximum(2 * true + wrong + missed, 1)


def randomisation_test(first: np.ndarray, second: np.ndarray, trials: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Paired approximate randomisation over sentences (Noreen 1989), two-sided: how often would a difference of F1 as large as
    the measured one come about, if for each sentence the two systems were exchanged by chance?

    Args:
        first, second: [sentences, (true positives, false positives, false negatives)] of the two systems; where there are
            several seeds, summed over them, so that a sentence stays one unit.
        trials: how many exchanges are drawn.
    Returns:
        F1 of `first` minus F1 of `second` in points, and p.
    """
    observed = float(f1_of(first.sum(0)) - f1_of(second.sum(0)))
    swapped = np.random.default_rng(seed).random((trials, len(first))) < 0.5
    moved = swapped.astype(np.float64) @ (second - first).astype(np.float64)
    difference = f1_of(first.sum(0) + moved) - f1_of(second.sum(0) - moved)
    return observed, (1 + int((np.abs(difference) >= abs(observed) - 1e-9).sum())) / (trials + 1)
