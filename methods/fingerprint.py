"""A short name for a model's weights as they are in memory, edits included."""

from __future__ import annotations

import torch
from transformers.modeling_utils import PreTrainedModel

from ske.types import content_hash

_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SAMPLES = 64


def fingerprint(model: PreTrainedModel) -> str:
    """16 digits that change when a weight changes.

    Of each weight: its name, shape, type, the sum of its bits as integers (exact in any order, so
    the same on every device and with any number of threads) and some values. Reads each weight
    once: seconds for billions of them.
    """
    parts = []
    for name, parameter in model.named_parameters():
        flat = parameter.detach().contiguous().view(-1)
        bits = flat.view(_WHOLE[flat.element_size()])
        some = bits[:: max(1, len(bits) // _SAMPLES)].tolist()
        total = int(bits.sum(dtype=torch.int64))
        parts.append([name, list(parameter.shape), str(parameter.dtype), total, some])
    return content_hash(parts)
