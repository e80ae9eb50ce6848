"""The equations of the paper in plain Python, as loops over lists: what the fast code is compared with."""

import math
from collections.abc import Sequence

Vector = list[float]


def unit(vector: Vector) -> Vector:
    norm = math.sqrt(sum(x * x for x in vector))
    return [x / norm for x in vector] if norm > 0 else vector


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def largest(values: Vector) -> int:
    return max(range(len(values)), key=lambda i: (values[i], -i))


def moving_average(prototypes: list[Vector], spans: Sequence[tuple[Vector, int]], decay: float) -> list[Vector]:
    """Eq. 6, span after span, without the normalisation."""
    prototypes = [list(vector) for vector in prototypes]
    for vector, label in spans:
        prototypes[label] = [decay * old + (1 - decay) * new for old, new in zip(prototypes[label], vector, strict=True)]
    return prototypes


def chosen_directions(similarity: Vector, thresholds: Vector) -> Vector:
    """Eq. 8."""
    towards = [1.0 if s > t else 0.0 for s, t in zip(similarity, thresholds, strict=True)]
    if all(similarity[0] >= s for s in similarity):
        towards[0] = 1.0
    return towards


def neighbor_shares(query: Vector, stored: Sequence[tuple[Vector, int]], neighbors: int, types: int) -> Vector:
    """Eq. 9. Refuses queries whose K-th and next neighbour are nearly tied, where single precision may choose either."""
    if not stored:
        return [0.0] * types
    ranked = sorted(((dot(query, vector), label) for vector, label in stored), reverse=True)
    neighbors = min(neighbors, len(ranked))
    if neighbors < len(ranked):
        nearly_tied = ranked[neighbors - 1][0] - ranked[neighbors][0] < 1e-6
        assert not nearly_tied or ranked[neighbors - 1][1] == ranked[neighbors][1], "choose another seed"
    nearest = [label for _, label in ranked[:neighbors]]
    return [nearest.count(c) / neighbors for c in range(types)]


def refined(soft: Vector, towards: Vector, beta: float) -> Vector:
    """Eq. 10, 11."""
    if sum(towards) == 0:
        return soft
    moved = [beta * p + (1 - beta) * d / sum(towards) for p, d in zip(soft, towards, strict=True)]
    return [value / sum(moved) for value in moved]


def log_softmax(logits: Vector) -> Vector:
    total = math.log(sum(math.exp(x) for x in logits))
    return [x - total for x in logits]


def reduced(losses: list[list[float]], reduction: str, mean_spans: float) -> float:
    """Losses of the valid spans of each row -> one number."""
    if reduction == "sentence":
        return sum(sum(row) / len(row) for row in losses) / len(losses)
    if reduction == "batch":
        return sum(map(sum, losses)) / sum(map(len, losses))
    return sum(sum(row) for row in losses) / (len(losses) * mean_spans)


def reservoir_of(spans: Sequence[tuple[int, float]], capacity: int, least: int) -> list[int]:
    """Span after span: the `least` first of each type by priority, then the first of all."""
    by_priority = sorted(range(len(spans)), key=lambda i: spans[i][1])
    sure = [i for i in by_priority if sum(spans[j][0] == spans[i][0] and spans[j][1] < spans[i][1] for j in by_priority) < least]
    return sorted((sure + [i for i in by_priority if i not in sure])[:capacity])


class Reference:
    """The whole denoiser over lists. A batch is a list of source and of target spans; `soft` maps a target span to its label."""

    def __init__(self, soft: dict, types: int, size: int, sides: Sequence[str], **options):
        self.soft, self.types, self.sides = soft, types, sides
        self.decay, self.neighbors = options["prototype_decay"], options["num_neighbors"]
        self.scale = options["local_threshold_scale"]
        self.normalize = options["normalize_directions"]
        self.prototypes = [[0.0] * size for _ in range(types)]
        self.languages = options["languages"]
        self.thresholds = {side: [[math.inf] * types for _ in set(self.languages)] for side in sides}
        self.seen = {side: [[[] for _ in range(types)] for _ in set(self.languages)] for side in sides}
        self.stored, self.collected = [], []

    def step(self, source: list[tuple[Vector, int]], target: list[tuple[tuple, Vector]], beta: float | None) -> None:
        pseudo = [(vector, largest(self.soft[span])) for span, vector in target]
        for spans in (source, pseudo):
            self.prototypes = [unit(v) for v in moving_average(self.prototypes, spans, self.decay)]
        for (span, vector), (_, label) in zip(target, pseudo, strict=True):
            towards = [0.0] * self.types
            for side in self.sides:
                if side == "global":
                    similarity, scale = [dot(vector, prototype) for prototype in self.prototypes], 1.0
                else:
                    if not self.stored:
                        continue
                    similarity, scale = neighbor_shares(vector, self.stored, self.neighbors, self.types), self.scale
                language = self.languages[span[0]]
                self.seen[side][language][label].append(similarity[label])
                thresholds = [scale * t for t in self.thresholds[side][language]]
                for s, t in zip(similarity, thresholds, strict=True):
                    assert abs(s - t) > 1e-9 or s == t == 0, "choose another seed"
                chosen = chosen_directions(similarity, thresholds)
                share = sum(chosen) if self.normalize and sum(chosen) else 1.0
                towards = [a + b / share for a, b in zip(towards, chosen, strict=True)]
            if beta is not None:
                self.soft[span] = refined(self.soft[span], towards, beta)
        self.collected += source + [(vector, largest(self.soft[span])) for span, vector in target]

    def begin_epoch(self) -> None:
        for side in self.sides:
            for seen, thresholds in zip(self.seen[side], self.thresholds[side], strict=True):
                for c, values in enumerate(seen):
                    if values:
                        thresholds[c] = sum(values) / len(values)
                    seen[c] = []
        self.stored, self.collected = self.collected, []


def mean(vectors: Sequence[Vector]) -> Vector:
    return [sum(values) / len(vectors) for values in zip(*vectors, strict=True)]


def others_of(span: tuple, soft: dict, strings: dict) -> Vector | None:
    """The mean soft label of the other spans of the same string; a span (row, words - 1) has a say, and is told something, where
    its label is an entity or it overlaps none. Rows follow each other; `strings` has only what is a span."""

    def rows(of: tuple) -> set[int]:
        return set(range(of[0], of[0] + of[1] + 1))

    def alone(of: tuple) -> bool:
        return largest(soft[of]) != 0 or not any(largest(soft[o]) and rows(o) & rows(of) for o in strings)

    same = [soft[o] for o in strings if o != span and strings[o] is not None and strings[o] == strings[span] and alone(o)]
    return mean(same) if same and alone(span) else None


def refined_at_once(source: list, target: dict, soft: dict, strings: dict, predicted: dict, beta: float, **options) -> dict:
    """`--refine epoch` over lists, where the sample is everything.

    Args:
        source: (vector, type).
        target: span -> (vector, language).
        soft, predicted: span -> label, span -> the model's own.
        strings: span -> its string, None where it is the only one.
    Returns:
        span -> the new label.
    """
    types, labels = options["types"], {span: largest(label) for span, label in soft.items()}
    spans = [(v, c, -1) for v, c in source] + [(vector, labels[span], language) for span, (vector, language) in target.items()]
    centers = {}
    for language in {entry[2] for entry in spans}:
        of_types = [[v for v, c, where in spans if (c, where) == (kind, language)] for kind in range(types)]
        centers[language] = mean([mean(vectors) for vectors in of_types if vectors])
    spans = [(unit([a - b for a, b in zip(v, centers[where], strict=True)]), c, where) for v, c, where in spans]
    prototypes = [unit(mean([v for v, c, _ in spans if c == kind])) for kind in range(types)]
    stored = [(v, c) for v, c, _ in spans]

    def similarity(side: str, vector: Vector) -> Vector:
        if side == "global":
            return [dot(vector, prototype) for prototype in prototypes]
        return neighbor_shares(vector, stored, options["num_neighbors"], types)

    def threshold(side: str, kind: int, language: int) -> float:
        mine = [similarity(side, v)[kind] for v, c, where in spans if (c, where) == (kind, language)]
        return sum(mine) / len(mine) if mine else math.inf

    scales, languages = {"global": 1.0, "local": options["local_threshold_scale"]}, {where for _, where in target.values()}
    thresholds = {
        (side, where): [scales[side] * threshold(side, kind, where) for kind in range(types)]
        for side in options["sides"]
        for where in languages
    }
    new = {}
    for (span, (_, language)), (vector, _, _) in zip(target.items(), spans[len(source) :], strict=True):
        others = others_of(span, soft, strings) if options["agreement"] else None
        if all(opinion[0] >= 0.99 for opinion in (soft[span], predicted[span], others or soft[span])):
            new[span] = soft[span]
            continue
        towards = list(others or [0.0] * types)
        if options["self_direction"]:
            towards = [a + b for a, b in zip(towards, predicted[span], strict=True)]
        for side in options["sides"]:
            found = similarity(side, vector)
            for s, t in zip(found, thresholds[side, language], strict=True):
                assert abs(s - t) > 1e-6, "choose another seed"
            chosen = chosen_directions(found, thresholds[side, language])
            share = sum(chosen) if options["normalize_directions"] and sum(chosen) else 1.0
            towards = [a + b / share for a, b in zip(towards, chosen, strict=True)]
        new[span] = refined(soft[span], towards, beta)
    return new
