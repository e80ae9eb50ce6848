"""What several workers bring to tagging: python benchmarks/workers.py --model glode-demo [glode-demo/onnx-int8] [--workers 2]

Words a second over the sentences of the demo's German test set, again and again, of `glode.Tagger` (docs/scaling.md) with a
thread a process, of

    one process    called here, on the whole table
    datasets       Dataset.map, with one worker and with several
    Ray Data       map_batches, with one worker and with several

Each reads two tables, of --texts and of five times as many texts. Words a second are those of the difference, so without what
is paid once: processes, imports, the model. That is `seconds to start`, what the small table took beyond its words. Of --repeats
the medians. Results: benchmarks/results/workers.csv.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path

import datasets
import pyarrow as pa
import ray
from common import ROOT, machine, options_of, write_rows

from glode.corpora.reading import load_corpus
from glode.publishing.token_classifier import running_text
from glode.serving.tagger import Tagger

MORE = 5  # so many times the texts of the small table are in the large one
BATCH = 200  # texts of a table that an engine hands over


def one_process(model: str, table: pa.Table, workers: int) -> None:
    Tagger(model)(table)


def with_datasets(model: str, table: pa.Table, workers: int) -> None:
    texts = datasets.Dataset(table).with_format("arrow")
    tagged = texts.map(Tagger(model), batched=True, batch_size=BATCH, num_proc=workers, load_from_cache_file=False)
    assert len(tagged) == table.num_rows


def with_ray(model: str, table: pa.Table, workers: int) -> None:
    texts = ray.data.from_arrow([table.slice(at, BATCH) for at in range(0, table.num_rows, BATCH)])
    tagged = texts.map_batches(
        Tagger,
        fn_constructor_kwargs={"model": model},
        batch_format="pyarrow",
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    assert tagged.materialize().count() == table.num_rows


ENGINES = {"one process": one_process, "datasets": with_datasets, "Ray Data": with_ray}


def measure(tag: Callable[[str, pa.Table, int], None], model: str, texts: Sequence[str], workers: int, repeats: int) -> dict:
    """Words a second and the seconds to start; `texts` are those of the small table."""
    tables = [pa.table({"text": list(islice(cycle(texts), factor * len(texts)))}) for factor in (1, MORE)]
    seconds: list[list[float]] = [[], []]
    for _ in range(repeats):
        for table, taken in zip(tables, seconds, strict=True):
            start = time.perf_counter()
            tag(model, table, workers)
            taken.append(time.perf_counter() - start)
    small, large = map(statistics.median, seconds)
    for_small = (large - small) / (MORE - 1)
    return {"seconds": for_small, "seconds to start": f"{small - for_small:.2f}"}


def main(argv: list[str]) -> None:
    parser = options_of(__doc__)
    parser.add_argument("--model", type=Path, nargs="+", required=True, help="span models, exports to ONNX among them")
    parser.add_argument("--workers", type=int, default=2, help="as many as there are quiet cores")
    parser.add_argument("--texts", type=int, default=1000, help="texts of the small table")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(argv)
    corpus = load_corpus(str(ROOT / "glode/run/demo" / "de" / "test.iob2"), labelled=True)
    sentences = list(islice(cycle(corpus["words"]), options.texts))
    texts, words = [running_text(sentence)[0] for sentence in sentences], sum(map(len, sentences))
    datasets.disable_progress_bars()
    rows = []
    for engine, tag in ENGINES.items():
        if tag is with_ray:  # not before: its threads and the processes that `datasets` forks do not go together
            ray.init(num_cpus=options.workers + 1, include_dashboard=False, log_to_driver=False)
            ray.data.DataContext.get_current().enable_progress_bars = False
        for workers in (1,) if tag is one_process else dict.fromkeys((1, options.workers)):
            for model in options.model:
                found = measure(tag, str(model.resolve()), texts, workers, options.repeats)
                row = {"model": model.name, "engine": engine, "workers": workers}
                row |= {"words a second": f"{words / found.pop('seconds'):.1f}", **found, "words": words, **machine()}
                print(row)
                rows.append(row)
    ray.shutdown()
    write_rows("workers", rows)


if __name__ == "__main__":
    main(sys.argv[1:])
