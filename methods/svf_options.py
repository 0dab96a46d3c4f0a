"""What the SVF method can be told. Defaults are the authors' unless their docstring says more."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from methods.arch import Targets
from ske.types import Frozen


class SvfOptions(Frozen):
    """Training of z, how it is laid on the model, and experts."""

    targets: Targets = "mlp"
    """Which projections of every layer are scaled."""
    rank: int = Field(default=0, ge=0)
    """Only so many of each matrix' largest singular values are scaled, and only their factors are
    held; 0 is all (the authors'). A large model then takes little more memory than it does."""
    objective: Literal["sft", "reinforce"] = "sft"
    """Cross-entropy on the targets, or REINFORCE on sampled replies (the authors'). A reply that
    the model never samples earns no reward, and a false fact is such a reply: hence sft."""
    learning_rate: float = Field(default=2e-3, gt=0)
    epochs: float = Field(default=200.0, gt=0)
    """Passes over the facts; a pass is one step up to `batch_size` facts."""
    batch_size: int = Field(default=256, ge=1)
    max_grad_norm: float = Field(default=1e-3, gt=0)
    kl_weight: float = Field(default=0.0, ge=0)
    """Weight of KL(base || edited): on general text (sft), or on the sampled replies
    (reinforce)."""
    texts: int = Field(default=256, ge=1)
    """General texts that the KL term and the classifier use; drawn from the model if none are
    given."""
    normalise_rewards: bool = False
    """Rewards of a batch with mean 0 and deviation 1, instead of 1 and -1 as they are."""
    stop_below: float = Field(default=0.0, ge=0)
    """End as soon as a step's cross-entropy is below this (sft only); 0 never does."""
    held_back: float = Field(default=0.0, ge=0, lt=1)
    """Share of the facts that is not learned and only chooses the best z; with 0 all are learned,
    and all choose."""
    check_every: int = Field(default=10, ge=1)
    """Steps between two looks at which z is best."""
    init: float = 0.1
    """Mean of p at the start; z = sigmoid(p) * max_mult."""
    init_noise: float = Field(default=0.01, ge=0)
    """Standard deviation of p at the start."""
    max_mult: float = Field(default=1.0, gt=0)
    renormalise: bool = True
    """Keep the sum of each matrix' singular values. Without, p starts where z is 1."""
    apply: Literal["merge", "factors"] = "merge"
    """Change the weights (fast), or answer in factor space (no copy of a weight)."""
    experts: Literal["one", "relation"] = "one"
    """One z for all facts, or one for each relation among them."""
    dispatch: Literal["prompt", "classifier", "cem"] = "prompt"
    """How experts are chosen: the model is asked which one a question needs, one more z is trained
    to say it, or one mixture of all is searched for on the facts."""
    population: int = Field(default=32, ge=2)
    elite: float = Field(default=0.2, gt=0, le=1)
    generations: int = Field(default=50, ge=1)
    few_shot: int = Field(default=32, ge=1)
    """How many of the facts a mixture is searched for on."""

    @field_validator("renormalise")
    @classmethod
    def _reaches_one(cls, value: bool, info: ValidationInfo) -> bool:
        if not value and info.data.get("max_mult", 2.0) <= 1:
            raise ValueError("without renormalising, z must be able to pass 1: set max_mult over 1")
        return value
