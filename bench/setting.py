"""Where measurements are made, and how quietly."""

from __future__ import annotations

import logging
import os
import platform
import warnings

import datasets
import torch


def quiet() -> None:
    """Only the table: no progress bars, no warnings of libraries."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    datasets.disable_progress_bars()


def machine() -> str:
    """What this is measured on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cores, threads = os.cpu_count(), torch.get_num_threads()
    return f"{cores} CPU cores ({platform.machine()}), threads: {threads}, fp32"
