"""ROME's 64 single edits and MEMIT's batch of 256, by the authors' code and by ours.

Both get the same contexts and the same second moments, which neither has to count. The authors'
code is run with its device replaced; blocks return tensors today where it expects tuples.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import torch

from bench.authors.excerpt import CPU, excerpt, module
from bench.authors.models import BLOCKS, DOWN, EMBEDDINGS, LAYERS, NORM, corrections, requests, toy
from bench.row import Row
from bench.timing import Work, paired
from methods.arch import Projection, decoder_of
from methods.base import Workshop
from methods.delta import DeltaEdit, LowRank
from methods.memit import Memit, MemitOptions
from methods.moments import moments
from methods.rome import Rome
from ske.backends.local import LocalLM

BEGINNINGS = ("The", "Therefore", "Because", "I", "You")
CONTEXTS = tuple(f"{word} is what people say of it. {{}}" for word in BEGINNINGS)
MANY = tuple(f"{word} is number {n} of all. {{}}" for n in range(4) for word in BEGINNINGS)
"""ROME's authors write twenty, MEMIT's five."""
SINGLES, SINGLES_THEIRS, BATCH, BATCH_THEIRS = 64, 8, 256, 16
ROME_LAYER, MEMIT_LAYERS, LAMBDA = 2, (1, 2, 3), 20_000.0
SAME = 0.02
"""Of an update's norm, in fp32: twenty steps of Adam at a rate of 0.5 make much of rounding. That
the arithmetic is the same is tested in fp64 (`tests/test_conformance.py`)."""
INDICES = {"batch_tok[i : i + n]": 'batch_tok["input_ids"][i : i + n]'}
TENSORS = {
    "cur_out[0][0, lookup_idxs[0]]": "cur_out[0, lookup_idxs[0]]",
    "cur_out[0][i, idx, :]": "cur_out[i, idx, :]",
    ".output[0][\n            : len(rew": ".output[\n            : len(rew",
}


def rome(folder: Path, kind: str) -> Row:
    """Edits a second, each of the untouched model."""
    inverses = dict[int, torch.Tensor]()
    theirs = _rome(folder, inverses)  # What is wrong with the folder is told before anything else.
    lm, facts = toy(kind), corrections(SINGLES)
    options = {"layers": [ROME_LAYER], "templates": MANY, "end": False}
    with tempfile.TemporaryDirectory() as cache:
        editor = Rome(options, Workshop(cache=Path(cache)))
        covariance = _moments(lm, [ROME_LAYER], editor.options, editor.workshop)[0]
        inverses[ROME_LAYER] = torch.inverse(covariance).float()
        asked, how = requests(facts[:SINGLES_THEIRS]), _settings(kind, [ROME_LAYER], 4.0)
        tell = [lambda kind, texts: None] * SINGLES
        found = paired(
            Work(lambda: editor.alone(lm, facts, tell), SINGLES),
            Work(
                _quiet(lambda: [theirs(lm.model, lm.tokenizer, r, how) for r in asked]), len(asked)
            ),
        )
    mine, published = found.gave
    off = max(_off(m, p) for m, p in zip(mine, published, strict=False))
    what = f"ROME, {kind}: {SINGLES} single edits"
    return Row(what, *found.rates("edits"), found.ratios, at_least=1, wrong=_wrong(off))


def memit(folder: Path, kind: str) -> Row:
    """Edits a second: 256 at once, theirs of a smaller batch, for they are made fact by fact."""
    covariances = dict[int, torch.Tensor]()
    theirs = _memit(folder, covariances)
    lm, facts = toy(kind), corrections(BATCH)
    options = {
        "layers": MEMIT_LAYERS, "templates": CONTEXTS, "end": False, "moment_weight": LAMBDA,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as cache:
        editor = Memit(options, Workshop(cache=Path(cache)))
        counted = _moments(lm, MEMIT_LAYERS, MemitOptions(**options), editor.workshop)
        covariances.update(zip(MEMIT_LAYERS, counted, strict=True))
        few, how = facts[:BATCH_THEIRS], _settings(kind, MEMIT_LAYERS, 0.75)
        asked = requests(few)
        found = paired(
            Work(lambda: editor.edit(lm, facts), BATCH),
            Work(_quiet(lambda: theirs(lm.model, lm.tokenizer, asked, how)), len(few)),
        )
        off = _off(editor.edit(lm, few), found.gave[1])
    what = f"MEMIT, {kind}: {BATCH} edits at once"
    return Row(what, *found.rates("edits"), found.ratios, at_least=5, wrong=_wrong(off))


def _rome(folder: Path, inverses: Mapping[int, torch.Tensor]) -> Callable[..., Any]:
    scope = _shared(folder)
    scope.update(
        get_inv_cov=lambda *told: inverses[ROME_LAYER],
        get_context_templates=lambda *told: ["{}", *MANY],
    )
    excerpt(folder / "rome" / "compute_u.py", {"compute_u"}, scope)
    values = {"compute_v", "get_module_input_output_at_word", "find_fact_lookup_idx"}
    excerpt(folder / "rome" / "compute_v.py", values, scope, CPU)
    excerpt(folder / "rome" / "rome_main.py", {"execute_rome", "upd_matrix_match_shape"}, scope)
    return scope["execute_rome"]


def _memit(folder: Path, covariances: Mapping[int, torch.Tensor]) -> Callable[..., Any]:
    scope = _shared(folder)

    def get_cov(model: Any, tok: Any, layer_name: str, *rest: Any, **kwargs: Any) -> torch.Tensor:
        number = next(int(part) for part in layer_name.split(".") if part.isdigit())
        return covariances[number].float()

    scope.update(get_cov=get_cov, get_context_templates=lambda *told: [["{}"], list(CONTEXTS)])
    values = {"compute_z", "get_module_input_output_at_words", "find_fact_lookup_idx"}
    excerpt(folder / "memit" / "compute_z.py", values, scope, {**CPU, **TENSORS})
    excerpt(folder / "memit" / "compute_ks.py", {"compute_ks"}, scope)
    main = {"execute_memit", "upd_matrix_match_shape"}
    excerpt(folder / "memit" / "memit_main.py", main, scope, CPU)
    return scope["execute_memit"]


def _shared(folder: Path) -> dict[str, Any]:
    """What both authors' codes import."""
    names = {"torch": torch, "np": numpy, "contextlib": contextlib, "copy": copy,
             "inspect": inspect, "OrderedDict": OrderedDict, "Path": Path}  # fmt: skip
    nethook = module("nethook", folder / "util" / "nethook.py", names)
    scope = {"torch": torch, "np": numpy, "deepcopy": copy.deepcopy, "Path": Path}
    tools = module(
        "repr_tools",
        folder / "rome" / "repr_tools.py",
        {**scope, "nethook": nethook},
        replaced=INDICES,
    )
    return {**scope, "nethook": nethook, "repr_tools": tools}


def _settings(kind: str, layers: Any, clamp: float) -> Any:
    """Their hyperparameters, as published."""
    block = BLOCKS[kind]
    return SimpleNamespace(
        layers=list(layers), fact_token="subject_last", v_num_grad_steps=20, v_lr=0.5,
        v_loss_layer=LAYERS - 1, v_weight_decay=0.5, clamp_norm_factor=clamp, kl_factor=0.0625,
        mom2_adjustment=True, mom2_update_weight=LAMBDA, mom2_dataset="", mom2_n_samples=0,
        mom2_dtype="float32", context_template_length_params=[], layer_module_tmp=block,
        rewrite_module_tmp=f"{block}.{DOWN[kind]}", mlp_module_tmp=f"{block}.mlp",
        ln_f_module=NORM[kind], lm_head_module=EMBEDDINGS[kind],
    )  # fmt: skip


def _moments(lm: LocalLM, layers: Any, options: Any, workshop: Workshop) -> list[torch.Tensor]:
    """C of some layers, [width, width]; from now on they are in the workshop's cache."""
    downs: list[Projection] = [decoder_of(lm.model).layers[number].down for number in layers]
    return [one.mean() for one in moments(lm, downs, options, workshop)]


def _quiet(run: Callable[[], Any]) -> Callable[[], Any]:
    def silent() -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            return run()

    return silent


def _off(mine: DeltaEdit, published: dict[str, Any]) -> float:
    """The largest difference of an update, as a share of its norm."""
    return max(_apart(mine.deltas[name], *parts) for name, parts in published.items())


def _apart(mine: LowRank | torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> float:
    dense = mine.dense() if isinstance(mine, LowRank) else mine
    # ROME's parts are vectors; MEMIT's have a column a fact, [in, n] and [out, n].
    theirs = torch.outer(one, other) if one.dim() == 1 else one @ other.T
    theirs = theirs if theirs.shape == dense.shape else theirs.T
    return ((dense.double() - theirs.double()).norm() / theirs.double().norm()).item()


def _wrong(off: float) -> str:
    return f"updates differ by {off:.2g} of their norm" if off > SAME else ""
