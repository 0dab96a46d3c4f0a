"""vLLM in this process, as an `LM` (extra `vllm`): much faster than transformers on a GPU.

Beginnings that prompts share are read once (vLLM's automatic prefix caching). Low-rank edits are
served as adapters, so that an edited model is asked without touching the weights; edits of other
shapes need a model of transformers.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from ske.backends.common import load_tokenizer, reply_of, scored_of, seed_of
from ske.backends.render import Renderer
from ske.config import ModelConfig, found
from ske.lm import Chat, Factors, Pair, Reply, Sampling, Scored
from ske.types import MissingExtra, NeedsWeights, UserError

DEFAULTS = {"enable_prefix_caching": True, "max_logprobs": -1, "enable_lora": True}
RANK = 64
"""Highest rank of an adapter, unless `max_lora_rank` says otherwise."""
MEMORY = 0.45
"""Share of a GPU's memory; the weights that are edited and trained need the rest."""


class VllmLM:
    """`LM` over a vLLM engine; also takes low-rank edits, see `laid`."""

    def __init__(self, engine: Any, renderer: Renderer, ends: Sequence[int]) -> None:
        """`engine` is a `vllm.LLM`; `ends` are the tokens that end a reply."""
        self.engine = engine
        self.renderer = renderer
        self._ends = set(ends)
        self._factors: dict[str, Factors] = {}
        self._adapter: Any = None
        self._laid = 0

    # -- LM -------------------------------------------------------------------------------------

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        """Continue each chat; greedy unless `sampling.temperature` > 0.

        Raises:
            UserError: a prompt is longer than the engine can read.
        """
        prompts = [self.renderer.prompt_ids(chat) for chat in chats]
        how = [self._how(sampling, number) for number in range(len(chats))]
        outputs = self._run(prompts, how)
        return [
            reply_of(self.renderer, prompt, output.outputs[0].token_ids, self._ends, sampling)
            for prompt, output in zip(prompts, outputs, strict=True)
        ]

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        """Score each answer, token by token.

        Raises:
            UserError: a prompt and its answer are longer than the engine can read.
        """
        prompts = [self.renderer.prompt_ids(pair.chat) for pair in pairs]
        answers = [self.renderer.answer_ids(*pair) for pair in pairs]
        k = min(max(top_k, 1), self.engine.llm_engine.model_config.get_vocab_size())
        how = _vllm().SamplingParams(
            max_tokens=1, temperature=0.0, prompt_logprobs=k, detokenize=False
        )
        read = [i for i, answer in enumerate(answers) if answer]
        outputs = self._run([prompts[i] + answers[i] for i in read], [how] * len(read))
        results = [Scored([], [], [], [], [])] * len(pairs)
        for i, output in zip(read, outputs, strict=True):
            rows = output.prompt_logprobs[len(prompts[i]) :]
            found_ = [{token: entry.logprob for token, entry in row.items()} for row in rows]
            results[i] = scored_of(answers[i], found_, top_k)
        return results

    def _run(self, prompts: Sequence[list[int]], how: Sequence[Any]) -> list[Any]:
        if not prompts:
            return []
        self._check(prompts)
        return self.engine.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            list(how),
            use_tqdm=False,
            lora_request=self._adapter,
        )

    def _check(self, prompts: Sequence[list[int]]) -> None:
        longest = max(map(len, prompts))
        window = self.engine.llm_engine.model_config.max_model_len
        if longest >= window:
            raise UserError(
                f"a prompt of {longest} tokens does not fit into vLLM's window of {window}; raise "
                "model.engine.max_model_len as far as the model allows, or make prompts smaller "
                "(design.max_facts)"
            )

    def _how(self, sampling: Sampling, number: int) -> Any:
        drawn = sampling.temperature > 0
        return _vllm().SamplingParams(
            max_tokens=sampling.max_new_tokens,
            min_tokens=sampling.min_new_tokens,
            temperature=sampling.temperature,
            top_k=sampling.top_k if drawn and sampling.top_k else -1,
            seed=seed_of(sampling.seed, number) if drawn else None,
            stop_token_ids=sorted(self._ends),
            detokenize=False,
        )

    # -- edits ----------------------------------------------------------------------------------

    @contextmanager
    def laid(self, factors: Mapping[str, Factors]) -> Iterator[None]:
        """Answer with low-rank differences of weights, on top of those that are laid already.

        Raises:
            NeedsWeights: the engine cannot take them.
        """
        if not factors:
            yield
            return
        before = self._factors, self._adapter
        whole = {name: _joined(self._factors.get(name), new) for name, new in factors.items()}
        self._factors = {**self._factors, **whole}
        self._laid += 1
        number = self._laid  # Never used twice: cached beginnings are told apart by it.
        try:
            with tempfile.TemporaryDirectory() as folder:
                write_adapter(Path(folder), self._factors)
                request = importlib.import_module("vllm.lora.request").LoRARequest
                self._adapter = request(f"edit-{number}", number, folder)
                self._load()
                try:
                    yield
                finally:
                    self.engine.llm_engine.remove_lora(number)
        finally:
            self._factors, self._adapter = before

    def _load(self) -> None:
        """Load the adapter now, not with the first question: here it is clear what failed."""
        try:
            self.engine.llm_engine.add_lora(self._adapter)
        except Exception as error:  # whatever a worker raises
            rank = max(down.shape[0] for _, down in self._factors.values())
            raise NeedsWeights(
                f"vLLM cannot take an edit of rank {rank} as an adapter ({error}); set "
                "model.engine.max_lora_rank (8, 16, 32, 64, 128, 256, 320 or 512), or "
                "model.backend=transformers"
            ) from error


def _joined(old: Factors | None, new: Factors) -> Factors:
    """The sum of two low-rank differences, as factors: their ranks side by side."""
    if old is None:
        return new
    return torch.cat([old[0], new[0]], dim=1), torch.cat([old[1], new[1]], dim=0)


def write_adapter(folder: Path, factors: Mapping[str, Factors]) -> None:
    """A LoRA adapter as peft saves it; all of one rank (padded with zeros), scaled by 1."""
    rank = max(1, *(down.shape[0] for _, down in factors.values()))
    tensors: dict[str, torch.Tensor] = {}
    for name, (up, down) in factors.items():
        module = f"base_model.model.{name.removesuffix('.weight')}"
        missing = rank - down.shape[0]
        tensors[f"{module}.lora_A.weight"] = torch.nn.functional.pad(down, (0, 0, 0, missing))
        tensors[f"{module}.lora_B.weight"] = torch.nn.functional.pad(up, (0, missing))
    save_file(
        {name: t.contiguous() for name, t in tensors.items()}, folder / "adapter_model.safetensors"
    )
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted({name.split(".")[-2] for name in factors}),
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(said), encoding="utf-8")


# -- opening ------------------------------------------------------------------------------------


def ready() -> None:
    """See that vLLM is there, without loading it.

    Raises:
        MissingExtra: it is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise MissingExtra(
            "model.backend = 'vllm': vLLM is not installed; pip install -e '.[vllm]' (Linux with "
            "a GPU; docs/scale-out.md names the build for processors), or let transformers "
            "answer: --set model.backend=transformers"
        )


def load(config: ModelConfig) -> VllmLM:
    """Start an engine on the base model.

    Raises:
        MissingExtra: vLLM is not installed.
        UserError: it does not start with this model and these arguments.
    """
    ready()
    # In this process: the engine ends with it, and nothing has to be sent to another one.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    renderer = Renderer(load_tokenizer(config), config.style)
    options = {**_defaults(config), **config.engine}
    try:
        engine = _vllm().LLM(model=str(found(config.path)), **options)
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"model.backend = 'vllm': the engine does not start with {options!r} "
            f"({_first_line(error)}); change model.engine, or set model.backend=transformers"
        ) from error
    return VllmLM(engine, renderer, _ends(config, renderer))


def _defaults(config: ModelConfig) -> dict[str, Any]:
    on_cpu = importlib.import_module("vllm.platforms").current_platform.is_cpu()
    dtype = config.dtype
    if dtype == "auto":
        dtype = "float32" if on_cpu else "bfloat16"
    # Compiling for a processor takes half a minute, and no gain was measured.
    machine = {"enforce_eager": True} if on_cpu else {"gpu_memory_utilization": MEMORY}
    adapters = {"max_lora_rank": RANK, "lora_target_modules": _projections(config)}
    return {**DEFAULTS, **adapters, "dtype": dtype, "seed": 0, **machine}


def _projections(config: ModelConfig) -> list[str] | None:
    """Names of the linear layers that may have adapters: all but the head.

    With a head that could have one, vLLM's scoring of given texts fails.
    """
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(found(config.path))
        )
    head = model.get_output_embeddings()
    linear = [
        n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head
    ]
    return sorted({name.rpartition(".")[2] for name in linear}) or None


def _ends(config: ModelConfig, renderer: Renderer) -> list[int]:
    """Every token that ends a reply, as transformers finds them."""
    path = found(config.path)
    try:
        own = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:
        own = AutoConfig.from_pretrained(path).eos_token_id
    ends = own if isinstance(own, list) else [own]
    return sorted({end for end in [*ends, renderer.end_id] if end is not None})


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _vllm() -> Any:
    """The package, imported when the first engine starts: it takes seconds."""
    return importlib.import_module("vllm")
