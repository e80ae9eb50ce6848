"""The scores of a run's models on its corpora."""

from datasets import Dataset

from glode.features.reach import gold_entities, reachable_entities
from glode.metrics import measure
from glode.run.preparation import Preparation
from trainer_glode import GlodeTrainer


def scores_of(run: Preparation, trainer: GlodeTrainer) -> dict[str, dict]:
    """{"dev": source development, "test": target test, "source_test": ...} -> {"strict": ..., "paper": ...}; with several
    languages also "dev_en", "test_de" and so on."""
    corpora = {"dev": run.corpora.dev, "source_test": run.corpora.source_test, "test": run.corpora.target_test}
    scores: dict[str, dict] = {}
    for name, corpus in corpora.items():
        if corpus is not None:
            windows = run.features(corpus)
            found = trainer.predict_entities(windows, len(corpus))
            scores |= score(run, name, corpus, windows, found)
    return scores


def score(run: Preparation, name: str, corpus: Dataset, windows: Dataset, found: list) -> dict[str, dict]:
    """Both protocols' scores, on the types that the corpus has; of each language too, where there are several."""
    gold, reachable = gold_entities(corpus), reachable_entities(corpus, windows, run.length)
    rows = run.corpora.by_language("target_test" if name == "test" else name).items()
    parts = {name: slice(None)}
    parts |= {f"{name}_{language}": slice(part.start, part.stop) for language, part in rows}
    return {part: measure(gold[at], found[at], reachable[at]) for part, at in parts.items()}
