"""Protects the centers of the languages: they are what they are said to be, and take away what all spans share."""

import random

import pytest
import torch
from reference import unit
from support.spans import assert_near, double, random_batch, random_unit, tensors_of, valid_spans

from glode.denoising.centers import Centers

SEEDS = range(10)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_center_of_a_language_is_the_mean_of_its_types_decayed_means(seed: int):
    rng = random.Random(seed)
    languages, types, size = 3, 4, 5
    centers = Centers(languages, types, size, decay=0.8)
    sums = [[[0.0] * size for _ in range(types)] for _ in range(languages)]
    counts = [[0.0] * types for _ in range(languages)]
    for _ in range(3):
        rows = [(rng.randrange(languages), random_batch(rng, types, size, number=6)) for _ in range(rng.randint(1, 5))]
        grids = [tensors_of(batch, size) for _, batch in rows]
        vectors, labels, valid = (torch.stack(parts)[:, :, None] for parts in zip(*grids, strict=True))
        centers.update(vectors, labels, torch.tensor([language for language, _ in rows]), valid)
        for language in range(languages):
            for c in range(types):
                kept = [vector for of, batch in rows if of == language for vector, label in valid_spans(batch) if label == c]
                counts[language][c] = 0.8 * counts[language][c] + len(kept)
                sums[language][c] = [0.8 * old + sum(v[i] for v in kept) for i, old in enumerate(sums[language][c])]
    queries = [random_unit(rng, size) for _ in range(languages)]
    found = centers.subtract(double(queries)[:, None, None], torch.arange(languages))[:, 0, 0]
    for language, query in enumerate(queries):
        means = [[x / n for x in total] for total, n in zip(sums[language], counts[language], strict=True) if n > 0]
        center = [sum(mean[i] for mean in means) / max(len(means), 1) for i in range(size)]
        assert_near(found[language], unit([q - m for q, m in zip(query, center, strict=True)]))


def test_centers_make_a_common_drift_vanish():
    """All vectors of a language move by the same; what is compared stays."""
    rng = random.Random(0)
    vectors = double([random_unit(rng, 8) for _ in range(100)]).view(2, 50, 1, 8)
    types = torch.tensor([rng.randrange(3) for _ in range(100)]).view(2, 50, 1)
    seen, languages = [], torch.tensor([0, 1])
    for drift in (0.0, 3.0):
        centers, moved = Centers(2, 3, 8), vectors + drift * languages[:, None, None, None]
        centers.update(moved, types, languages, torch.ones_like(types, dtype=torch.bool))
        seen.append(centers.subtract(moved, languages))
    assert_near(seen[1], seen[0].tolist())
