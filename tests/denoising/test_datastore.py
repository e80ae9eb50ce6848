"""Protects the search for neighbours: eq. 9 equals a reference over plain lists; a search in cells is near to it, says how near,
and gives the same directions."""

import random

import pytest
import torch
from reference import neighbor_shares
from support.settings import settings
from support.spans import assert_near, double, random_unit
from torch import Tensor
from torch.nn import functional as F

from glode.denoising.datastore import Datastore
from glode.denoising.exact_index import ExactIndex
from glode.denoising.refinement import directions

SEEDS = range(10)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("neighbors", [1, 7, 300])
def test_eq_9_is_the_share_among_the_nearest(seed: int, neighbors: int):
    rng = random.Random(seed)
    types, size = rng.randint(2, 5), 6
    stored = [(random_unit(rng, size), rng.randrange(types)) for _ in range(rng.randint(1, 60))]
    queries = [random_unit(rng, size) for _ in range(10)]
    datastore = Datastore(types, size, settings(num_neighbors=neighbors))
    datastore.store(torch.tensor([v for v, _ in stored]), torch.tensor([c for _, c in stored]))
    assert len(datastore) == len(stored)
    assert_near(datastore.similarity(double(queries)), [neighbor_shares(q, stored, neighbors, types) for q in queries])


def test_eq_9_of_an_empty_datastore_is_zero():
    datastore = Datastore(3, 4, settings())
    assert datastore.similarity(torch.ones(2, 4)).tolist() == [[0.0] * 3] * 2
    datastore.rebuild()
    assert datastore.similarity(torch.ones(2, 4)).tolist() == [[0.0] * 3] * 2
    assert datastore.similarity(torch.ones(0, 4)).shape == (0, 3)


def test_a_small_datastore_has_few_neighbours():
    vectors, types = clustered(100, 1.0)
    store, rng = Datastore(3, 16, settings(neighbor_share=0.07)), random.Random(0)
    store.store(vectors, types)
    assert store.neighbors == 7
    queries = [random_unit(rng, 16) for _ in range(20)]
    stored = list(zip(vectors.double().tolist(), types.tolist(), strict=True))
    assert_near(store.similarity(double(queries)), [neighbor_shares(query, stored, 7, 3) for query in queries])
    store.store(vectors[:1], types[:1])
    assert store.neighbors == 1


def clustered(number: int, purity: float) -> tuple[Tensor, Tensor]:
    """Unit vectors around ten centers; a vector has its center's type with the given probability, else another."""
    generator = torch.Generator().manual_seed(0)
    centers, which = torch.randn(10, 16, generator=generator), torch.randint(0, 10, (number,), generator=generator)
    vectors = F.normalize(centers[which] + 0.3 * torch.randn(number, 16, generator=generator), dim=-1)
    other = torch.randint(0, 3, (number,), generator=generator)
    return vectors, torch.where(torch.rand(number, generator=generator) < purity, which % 3, other)


@pytest.mark.parametrize("number", [3000, 12_000])  # a cluster of 300 is no more than 2 K, one of 1,200 is
@pytest.mark.parametrize("purity", [0.0, 0.7, 0.97, 1.0])
def test_a_large_datastore_is_searched_approximately_and_says_how_well(number: int, purity: float):
    vectors, types = clustered(number, purity)
    exact, fast = (Datastore(3, 16, settings(num_neighbors=160, datastore_exact_size=size)) for size in (number, 1000))
    for store in (exact, fast):
        store.store(vectors, types)
    assert (exact.recall, exact.deviation, exact.cells) == (1.0, 0.0, None)
    queries = F.normalize(vectors[:200] + 0.1 * torch.randn(200, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    error = (exact.similarity(queries) - fast.similarity(queries)).abs()
    assert fast.recall >= 0.95 and fast.deviation < 0.01 and error.mean() < 0.01
    assert fast.similarity(queries).sum(1).allclose(torch.ones(200))
    searched = []
    fast._search = lambda queries: searched.append(len(queries)) or Datastore._search(fast, queries)
    fast.similarity(queries)
    assert sum(searched) < {3000: 200, 12_000: 60}[number] if purity == 1.0 else sum(searched) > 150
    if purity == 1.0:
        assert error.mean() < 1e-3  # only where two centers meet


def test_vectors_without_clusters_are_searched_exactly_and_cells_still_settle():
    """As on real corpora: an eighth of the cells does not hold the neighbours, and yet most of the store is of one type."""
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(3000, 64, generator=generator), dim=-1)
    types = (vectors[:, 0] > 0.3).long()
    exact, fast = (Datastore(2, 64, settings(num_neighbors=100, datastore_exact_size=size)) for size in (3000, 1000))
    for store in (exact, fast):
        store.store(vectors, types)
    assert isinstance(fast.index, ExactIndex) and fast.recall == 1.0 and 0 < fast.deviation < 0.01
    settled = fast.cells.settle(vectors, fast.neighbors)[1]
    assert 0.1 < settled.double().mean() < 0.9
    assert torch.equal(fast.similarity(vectors)[~settled], exact.similarity(vectors)[~settled])


def test_spans_are_searched_where_it_may_change_their_directions():
    """An O span that moves towards O alone in any case is not; an entity span is, as its share sets the threshold of its type.
    The directions (eq. 8) are those of an exact search."""
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(3000, 16, generator=generator), dim=-1)
    types = torch.where(vectors[:, 0] > 0.3, 1 + (vectors[:, 1] > 0.05).long(), 0)  # hardly a cell holds one type alone
    exact, fast = (Datastore(3, 16, settings(num_neighbors=100, datastore_exact_size=size)) for size in (3000, 1000))
    for store in (exact, fast):
        store.store(vectors, types)
    queries = F.normalize(vectors[:500] + 0.05 * torch.randn(500, 16, generator=generator), dim=-1)
    labels, shares = types[:500].where(torch.arange(500) % 7 > 0, 1), exact.similarity(queries)
    searched = []
    fast._search = lambda queries: searched.append(len(queries)) or Datastore._search(fast, queries)
    plain = fast.similarity(queries)
    for thresholds in ([0.95, 0.2, 0.15], [0.95, 0.4, 0.4], [torch.inf] * 3):
        thresholds = torch.tensor(thresholds).expand(500, 3)
        found = fast.similarity(queries, labels, thresholds)
        assert torch.equal(directions(found, thresholds), directions(shares, thresholds))
        assert torch.equal(directions(found, thresholds, multiple=False), directions(shares, thresholds, multiple=False))
        assert torch.equal(found[labels != 0], plain[labels != 0])
    # The higher the thresholds, the fewer can be exceeded.
    assert searched == sorted(searched, reverse=True) and searched[-1] < 200 < 300 < searched[1] < 400 < searched[0]
    assert 0 < fast.deviation < 0.03
