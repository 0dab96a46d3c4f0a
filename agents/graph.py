"""The graph of roles, and `design`, which runs it: wiring only.

Writes to its folder: `prompts/pack-NN.md` (the exact system messages), `design.json`,
`curve.json`, `costs.json`, `trace.jsonl`, and `checkpoints.sqlite`, from which a killed run goes
on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Send

from agents.approval import spoken
from agents.batch import Batch
from agents.brain import Brain
from agents.context import Context, Progress
from agents.critic import critic
from agents.examiner import examiner
from agents.judge import judge
from agents.model_brain import brain_for, turns
from agents.packer import packer
from agents.planner import STEPS, planner, trials_of
from agents.publish import NeedsApproval, NothingLeft, clear, design_of, publish
from agents.questioner import questioner
from agents.records import Design, Turns
from agents.searching import ready
from agents.state import State, packs_of, rejections, start
from agents.waiting import approval
from agents.writer import writer
from ske.config import DesignConfig
from ske.io import drop_torn_line, write_json
from ske.lm import LM
from ske.trace import Trace
from ske.types import Fact, UserError, content_hash

NODES = 7


def build() -> StateGraph[State, Context]:
    """The graph, not yet compiled; `build().compile().get_graph().draw_mermaid()` draws it."""
    graph = StateGraph(State, context_schema=Context)
    graph.add_node("planner", planner)
    graph.add_node("packer", packer)
    graph.add_node("writer", writer)
    graph.add_node("questioner", questioner)
    graph.add_node("examiner", examiner)  # pyright: ignore[reportArgumentType] (its state is Send's)
    graph.add_node("critic", critic)
    graph.add_node("judge", judge)
    graph.add_node("approval", approval)
    graph.add_edge(START, "planner")
    graph.add_edge("planner", "packer")
    graph.add_edge("packer", "writer")
    graph.add_edge("writer", "questioner")
    graph.add_conditional_edges("questioner", _over_packs, ["examiner", "critic"])
    graph.add_edge("examiner", "critic")
    graph.add_edge("critic", "judge")
    graph.add_conditional_edges("judge", _after_judge, ["planner", "approval"])
    graph.add_conditional_edges("approval", _after_approval, ["planner", "approval", END])
    return graph


def _over_packs(state: State) -> list[Send] | Literal["critic"]:
    trial, layout = len(state["trials"]), state["plan"]["layout"]
    tasks = [{"trial": trial, "layout": layout, "pack": pack} for pack in state["packs"]]
    return [Send("examiner", task) for task in tasks] or "critic"


def _after_judge(state: State) -> Literal["planner", "approval"]:
    return "approval" if state["phase"] == "done" else "planner"


def _after_approval(state: State) -> str:
    return {"revise": "planner", "exhausted": "approval"}.get(state["phase"], END)


def design(
    facts: Sequence[Fact],
    lm: LM,
    config: DesignConfig,
    folder: Path,
    progress: Progress | None = None,
    *,
    names: Sequence[str] = (),
    key: str = "",
    brain: Brain | None = None,
) -> Design:
    """Design prompts for the facts; called again after a crash, it goes on where it was.

    Args:
        facts: The corrections.
        lm: The teacher; without a system message it is the base model.
        config: Budget, layouts and goals.
        folder: Where prompts, trace and checkpoints go.
        progress: Called with one line a trial.
        names: Other subjects, of the same kind as the facts', to ask about as neighbours.
        key: What else the design depends on, e.g. the model's hash: another key starts afresh.
        brain: Decides instead of the one that the configuration names.

    Raises:
        NeedsApproval: The prompts are written and wait for a person (`config.approve`), who
            answers with `agents.approval.say`. After a no the design goes on with the reason.
        NothingLeft: All that could be proposed was rejected.
        MissingExtra: `config.search` needs a package that is not installed.
        UserError: No facts, or two with the same id; approved were other prompts; the brain's
            model cannot be reached.
    """
    ready(config)
    brain = brain or brain_for(config, lm, folder, key)
    context = _context(facts, lm, config, folder, progress, names, brain)
    thread = content_hash([_identity(facts), _settings(config), list(names), key])
    folder.mkdir(parents=True, exist_ok=True)
    with SqliteSaver.from_conn_string(str(folder / "checkpoints.sqlite")) as saver:
        app = build().compile(checkpointer=saver)
        where = _where(thread, config)
        state = _run(app, where, context)
        waiting = bool(app.get_state(where).next)
    result = design_of(state, trials_of(state), _turns(context), config.recall)
    publish(result, folder)
    if waiting and state["phase"] == "exhausted":
        raise NothingLeft(folder, result.rejected, config.layouts)
    if waiting:
        raise NeedsApproval(folder, len(result.packs))
    return result


def _where(thread: str, config: DesignConfig) -> RunnableConfig:
    # The search keeps its budget but for the naive trials and the last verification.
    trials = config.max_trials + len(STEPS) * config.max_repairs + 8
    return {
        "configurable": {"thread_id": thread},
        "recursion_limit": (NODES + 1) * trials,
        # One local model is behind all examiners: side by side they would only get in its way.
        "max_concurrency": 1,
    }


def _run(
    app: CompiledStateGraph[State, Context, State, State],
    where: RunnableConfig,
    context: Context,
) -> State:
    """Start, go on, pass on a person's word, or read what is finished: as the checkpoint says."""
    before = app.get_state(where)
    entry: State | Command[Any] | None = None
    if before.created_at is None:
        clear(context.folder)
        entry = start()
    elif not before.next:
        return before.values  # pyright: ignore[reportReturnType]
    elif before.interrupts:
        word = _word(cast(State, before.values), context)
        if word is None:
            return before.values  # pyright: ignore[reportReturnType]
        context.answered, entry = True, Command(resume=word)
    drop_torn_line(context.trace.path)
    context.meter.recount(context.trace.events())
    # "sync": every checkpoint is on disk before the next step begins.
    app.invoke(entry, where, context=context, durability="sync")
    write_json(context.folder / "costs.json", context.meter.report())
    return app.get_state(where).values  # pyright: ignore[reportReturnType]


def _word(state: State, context: Context) -> dict[str, Any] | None:
    """What the design that waits is told; None if it has to go on waiting."""
    word = spoken(context.folder, packs_of(state["held"]), rejections(state))
    if word is not None:
        return {"approved": word.approved, "reason": word.reason}
    must_ask = context.config.approve or state["phase"] == "exhausted"
    return None if must_ask else {"approved": True, "reason": ""}


def _context(
    facts: Sequence[Fact],
    lm: LM,
    config: DesignConfig,
    folder: Path,
    progress: Progress | None,
    names: Sequence[str],
    brain: Brain,
) -> Context:
    by_id = {fact.id: fact for fact in facts}
    if not facts:
        raise UserError("there are no facts to design prompts for")
    if len(by_id) != len(facts):
        raise UserError("two facts have the same id; give each line of the facts file its own")
    return Context(
        lm=lm,
        facts=by_id,
        config=config,
        trace=Trace(folder / "trace.jsonl"),
        folder=folder,
        brain=brain,
        batch=Batch(facts),
        names=names,
        progress=progress,
    )


def _turns(context: Context) -> Turns:
    if context.config.brain == "rules":
        return Turns()
    return turns(context.brain.name, context.trace.events())


def _identity(facts: Sequence[Fact]) -> list[dict[str, Any]]:
    return [fact.model_dump(mode="json") for fact in facts]


def _settings(config: DesignConfig) -> dict[str, Any]:
    # Approval changes who looks at the prompts, not what they are; nor does where a model is.
    ways = {"base_url", "key_env", "timeout", "structured"}
    return config.model_dump(mode="json", exclude={"approve": True, "endpoint": ways})
