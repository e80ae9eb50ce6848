"""The processor cores of a run."""

import os

import torch


def use_all_cores() -> None:
    """Give a process its share of the cores: `accelerate launch` and `torchrun` limit each to one thread by themselves."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "LOCAL_WORLD_SIZE" in os.environ
    if launched and os.environ.get("OMP_NUM_THREADS") == "1" and not torch.cuda.is_available():
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
        torch.set_num_threads(threads)
        import faiss  # after torch: both may bring a CUDA runtime

        faiss.omp_set_num_threads(threads)
