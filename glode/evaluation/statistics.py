"""What chance may have done: counts of each sentence, a bootstrap interval of F1, a paired test of two models."""

from collections.abc import Iterable, Sequence

import numpy as np

from glode.metrics import Entity, of_known_types

TRIALS = 10_000  # of a paired test
_CELLS = 2**22  # random numbers that are drawn together


def sentence_counts(references: Sequence[Iterable[Entity]], predictions: Sequence[Iterable[Entity]]) -> np.ndarray:
    """Gold, predicted and correct entities of each sentence; predictions of types that the references lack are left out, see
    `glode.metrics.of_known_types`. int32 [sentences, 3]"""
    rows = zip(references, of_known_types(references, predictions), strict=True)
    pairs = [(set(wanted), set(found)) for wanted, found in rows]
    counts = [(len(wanted), len(found), len(wanted & found)) for wanted, found in pairs]
    return np.array(counts, dtype=np.int32).reshape(-1, 3)


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 in percent of counts [..., (gold, predicted, correct)]."""
    gold, predicted, correct = np.moveaxis(counts, -1, 0)
    return 200 * correct / np.maximum(gold + predicted, 1)


def bootstrap(counts: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """F1 of samples of as many sentences, drawn with replacement; the models of one draw have the same sentences.

    Args:
        counts: [sentences, models, (gold, predicted, correct)].
    Returns:
        F1 in percent. [draws, models]
    """
    # Sentences with the same counts are one kind, and how often a kind is drawn is multinomial.
    kinds, number = np.unique(counts.reshape(len(counts), -1), axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(counts), number / len(counts), size=draws)
    return f1_of((drawn @ kinds).reshape(draws, *counts.shape[1:]))


def interval(samples: np.ndarray) -> list[float]:
    """The middle 95 % of samples [draws]."""
    return [float(bound) for bound in np.percentile(samples, (2.5, 97.5))]


def randomisation_test(first: np.ndarray, second: np.ndarray, trials: int = TRIALS, seed: int = 0) -> tuple[float, float]:
    """Paired approximate randomisation over sentences (Noreen 1989), two-sided: how often would a difference of F1 as large as
    the measured one come about, if for each sentence the two systems were exchanged by chance?

    Args:
        first, second: [sentences, (gold, predicted, correct)] of the two systems; where there are several seeds, summed over
            them, so that a sentence stays one unit.
        trials: how many exchanges are drawn.
    Returns:
        F1 of `first` minus F1 of `second` in points, and p.
    """
    generator, observed = np.random.default_rng(seed), float(f1_of(first.sum(0)) - f1_of(second.sum(0)))
    as_large, change = 0, second.astype(np.float64) - first
    block = max(1, _CELLS // len(first))
    for at in range(0, trials, block):
        swapped = generator.random((min(block, trials - at), len(first)), dtype=np.float32) < 0.5
        moved = swapped.astype(np.float64) @ change
        difference = f1_of(first.sum(0) + moved) - f1_of(second.sum(0) - moved)
        as_large += int((np.abs(difference) >= abs(observed) - 1e-9).sum())
    return observed, (1 + as_large) / (trials + 1)
