"""One of several processes that train together; started by torchrun, see test_processes.py.

Writes losses and the edit into the folder that is its argument, if it is the first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tiny
import torch
from peft import get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from methods.adapters import lora_config, low_rank_deltas
from methods.base import Lesson, Workshop
from methods.delta import DeltaEdit, LowRank
from methods.sft import train
from ske import processes
from ske.lm import Pair, ask
from ske.training import SftOptions

OPTIONS = SftOptions(rank=4, alpha=8, learning_rate=5e-3, epochs=12, batch_size=4)


def lessons() -> list[Lesson]:
    """Eight of very different lengths, half of them held to a distribution."""
    lm = tiny.lm()
    taught = [Lesson(chat=ask(f.prompt), completion=f.target_new) for f in tiny.FACTS]
    taught.append(Lesson(chat=ask("Who?"), completion="The employer of Bela Cole is Acme Works."))
    texts = ("Ruria", "The capital of Ruria is Vell.", "Who is", "I don't know who the head is.")
    pairs = [Pair(ask(""), text) for text in texts]
    held = tiny.held(lm, pairs, 5, kind="free", spoken=False)
    return [lesson for both in zip(taught, held, strict=True) for lesson in both]


def learn(work: Path | None) -> tuple[list[float], DeltaEdit]:
    """The losses, and what was learned."""
    losses: list[float] = []
    workshop = Workshop(seed=3, folder=work, progress=lambda step, total, loss: losses.append(loss))
    return losses, train(tiny.lm(), lessons(), OPTIONS, workshop, "test")


def sharded() -> bool:
    """Whether adapters are read off a model that FSDP has cut up as off a whole one."""

    def model():
        torch.manual_seed(0)
        base = tiny.lm().model
        made = get_peft_model(base, lora_config(OPTIONS, base))
        for name, weight in made.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight)
        return made

    cut, mesh = model(), init_device_mesh("cpu", (processes.count(),))
    for layer in cut.base_model.model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(cut, mesh=mesh)
    whole, found = low_rank_deltas(model()), low_rank_deltas(cut)
    return whole.keys() == found.keys() and all(
        isinstance(one := whole[name], LowRank)
        and isinstance(other := found[name], LowRank)
        and torch.equal(one.dense(), other.dense())
        for name in whole
    )


def main(out: Path) -> None:
    # Every process has a folder of its own here, so that it can be seen who writes.
    own = out / f"process-{processes.local_number()}"
    own.mkdir(parents=True)
    losses, edit = learn(own / "work")
    same = sharded()
    if processes.first():
        edit.save(out / "edit")
        (out / "losses.json").write_text(json.dumps({"losses": losses, "sharded": same}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    processes.leave(0)
