"""The command line: `ske run | compare | edit | status | inspect | prompt | report | ...`.

Says what is wrong in a sentence and exits with 2 for the user's mistakes, 1 for ours, 130 for
Ctrl-C. Heavy libraries are imported by the stages that need them, so that what needs no model
answers at once.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pipeline.adopting import runs_below
from pipeline.mistakes import check_methods, check_options, runnable
from pipeline.run import Run
from pipeline.stage import note_left
from ske import interrupt, processes
from ske.config import load
from ske.io import locked, refuse_in_use
from ske.types import UserError

app = typer.Typer(
    help="Correct facts in language models without breaking the rest.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)
world_app = typer.Typer(help="The embedded world and its base model.", no_args_is_help=True)
app.add_typer(world_app, name="world")
out_console = Console()

ConfigFile = Annotated[Path, typer.Argument(help="A YAML file, e.g. configs/demo.yaml.")]
Folder = Annotated[Path, typer.Argument(help="A run folder, e.g. runs/demo.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key: --set edits.limit=16 (may be repeated)."),
]
Out = Annotated[Path | None, typer.Option("--out", help="The run folder.")]
From = Annotated[
    list[Path] | None,
    typer.Option("--from", help="Take what is the same from this run, or the runs in this folder."),
]
Stage = Annotated[str | None, typer.Option("--stage", help="Only up to this stage.")]


def default_folder(config: Path, suffix: str = "") -> Path:
    """runs/NAME for configs/NAME.yaml; for a run's own config.yaml its folder; then the suffix."""
    if config.name == "config.yaml" and (config.parent / "stages").is_dir():
        own = config.parent.resolve()
        return config.parent if not suffix else own.with_name(own.name + suffix)
    return Path("runs") / f"{config.stem}{suffix}"


@app.command()
def run(
    config: ConfigFile, stage: Stage = None, set_: Set = None, out: Out = None, from_: From = None
) -> None:
    """Run every stage that is not done; run again to resume.

    [dim]ske run configs/demo.yaml
    ske run configs/demo.yaml --stage design
    ske run configs/demo.yaml --set edits.limit=16 --set seed=3 --out runs/mine
    ske run configs/demo.yaml --set train.rank=4 --out runs/rank-4 --from runs/demo[/dim]
    """
    this = Run(load(config, set_), out or default_folder(config))
    this.others = tuple(runs_below(from_ or []))
    _run(this, stage)


@app.command()
def compare(
    config: ConfigFile,
    methods: Annotated[str, typer.Option(help="Names with commas, or `all`.")] = "all",
    set_: Set = None,
    out: Out = None,
) -> None:
    """Run several methods on the same edits and print the table.

    `all` is every method whose optional packages are installed; the others are named.

    [dim]ske compare configs/demo.yaml --methods ske,prompt,lora[/dim]
    """
    names = runnable(out_console) if methods == "all" else _split(methods)
    check_methods(names)
    chosen = tuple(dict.fromkeys(("base", *names)))
    resolved = load(config, set_).model_copy(update={"methods": chosen})
    _run(Run(resolved, out or default_folder(config, "-compare")))


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _run(this: Run, stage: str | None = None) -> None:
    config, folder = this.config, this.folder
    check_methods(config.methods)
    check_methods(list(config.options))
    this.wanted(stage)
    if any(item.state != "done" for item in this.plan()):
        refuse_in_use(folder)
        check_options(config)
    ran = this.execute(stage)
    if not processes.first():
        return
    if not ran:
        out_console.print(
            f"Nothing to do: every stage of {escape(str(folder))} is done.", highlight=False
        )
    elif stage is None:
        out_console.print(f"Done: {escape(str(folder))}", highlight=False)
    if stage is None:
        from pipeline.show import table

        out_console.print(table(this))
        out_console.print(
            escape(f"Read {folder}/report.md, or open {folder}/report.html."), highlight=False
        )


@app.command()
def edit(
    model: Annotated[str, typer.Option(help="A folder or hub id.")],
    facts: Annotated[
        Path,
        typer.Option(
            help="facts.jsonl: prompt, subject, target_new a line; or any data set's file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where the edited model goes.")],
    method: Annotated[str, typer.Option(help="`ske methods` lists them.")] = "ske",
    set_: Set = None,
) -> None:
    """Facts in, edited model out.

    [dim]ske edit --model world/model --facts my_facts.jsonl --out edited/[/dim]
    """
    from pipeline.editing import edit_model

    edit_model(model, facts, method, out, set_ or [], out_console)


@app.command()
def status(run_: Folder, set_: Set = None) -> None:
    """Which stages are done, stale (and because of which key) or to do, and what they took.

    [dim]ske status runs/demo
    ske status configs/demo.yaml --set design.recall=0.9[/dim]
    """
    from pipeline.show import plan_table

    this = _opened(run_, set_)
    out_console.print(plan_table(this))


@app.command()
def inspect(
    run_: Folder,
    fact: Annotated[str | None, typer.Option(help="One fact's whole way, by id.")] = None,
    html: Annotated[bool, typer.Option("--html", help="Write the same as one page.")] = False,
    approve: Annotated[
        bool, typer.Option("--approve", help="Let the teacher use the prompts that wait.")
    ] = False,
    reject: Annotated[
        str | None, typer.Option("--reject", metavar="REASON", help="Don't, and say why.")
    ] = None,
    turn: Annotated[int | None, typer.Option(min=0, help="One turn of an agent in full.")] = None,
    diff: Annotated[
        tuple[str, str] | None, typer.Option(metavar="OLD NEW", help="Two prompts compared.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show a design as it runs.")] = False,
) -> None:
    """What the agents were asked, what they answered, and how each prompt scored.

    With design.approve=true a run stops when its prompts are written, until somebody approves them.

    [dim]ske inspect runs/demo
    ske inspect runs/demo --fact world-0012
    ske inspect runs/demo --html
    ske inspect runs/demo --turn 12
    ske inspect runs/demo --diff 0.0 pack-00
    ske inspect runs/demo --follow
    ske inspect runs/demo --approve
    ske inspect runs/demo --reject "one prompt is too long"[/dim]
    """
    from pipeline.looking import Wish, look

    wish = Wish(fact, html, approve, reject, turn, diff, follow)
    for part in look(_opened(run_, None), wish):
        plain = isinstance(part, str)
        out_console.print(part, highlight=False, markup=False, soft_wrap=plain)


@app.command()
def prompt(
    template: Annotated[str, typer.Argument(help="A template, e.g. agents/designer.")],
    fact: Annotated[
        str | None, typer.Option(help="A fact's id (embedded world or --facts).")
    ] = None,
    facts: Annotated[Path | None, typer.Option(help="A facts file to take the fact from.")] = None,
) -> None:
    """Render a prompt template without calling a model.

    [dim]ske prompt agents/designer --fact world-0012[/dim]
    """
    from pipeline.previewing import render_for

    rendered = render_for(template, fact, facts)
    Console(stderr=True).print(f"[dim]{rendered.template} ({rendered.hash})[/dim]")
    typer.echo(rendered.text)


@app.command()
def report(run_: Folder) -> None:
    """Rebuild results, comparisons, report and figures from saved rows, without a model.

    [dim]ske report runs/demo[/dim]
    """
    from pipeline import report as writing
    from pipeline import scoring
    from pipeline.show import stale_notes

    this = _opened(run_, None)
    if not this.stage("ask").exists():
        raise UserError(f"{run_}: nothing was asked yet; first: ske run {run_}/config.yaml")
    for note in stale_notes(this):
        out_console.print(escape(note), highlight=False)
    with locked(this.folder):
        for module, name in ((scoring, "score"), (writing, "report")):
            folder = this.stage(name)
            folder.mkdir(parents=True, exist_ok=True)
            note_left(name, this.folder, module.run(this, folder))
    out_console.print(
        escape(f"Wrote {run_}/report.md, report.html, figures/ and results.csv"), highlight=False
    )


@app.command()
def combine(
    runs: Annotated[list[Path], typer.Argument(help="Run folders that differ only in seeds.")],
    out: Annotated[Path, typer.Option(help="Where the tables go.")],
) -> None:
    """Runs that differ only in their seeds, as one table with seeds as a level above cases.

    [dim]ske combine runs/s0 runs/s1 runs/s2 runs/s3 runs/s4 --out runs/seeds[/dim]
    """
    from pipeline.combining import combine as combined

    typer.echo(combined(runs, out))


@app.command()
def scale(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of different edits.limit.")],
    out: Annotated[Path, typer.Option(help="Where the table and the figures go.")],
) -> None:
    """Runs that differ in how many edits they make: every metric against the number of edits.

    Runs of the same size are joined as `ske combine` joins them.

    [dim]ske scale runs/e1 runs/e4 runs/e16 runs/e64 --out runs/scale[/dim]
    """
    from pipeline.scaling import scale as scaled

    typer.echo(scaled(runs, out))


@app.command()
def grid(
    file: Annotated[Path, typer.Argument(help="A grid, e.g. configs/grids/world.yaml.")],
    number: Annotated[int | None, typer.Option(help="Make this run, or go on with it.")] = None,
) -> None:
    """Methods x data sets x seeds as independent runs, listed, or one of them made.

    [dim]ske grid configs/grids/world.yaml
    ske grid configs/grids/world.yaml --number 3[/dim]
    """
    from pipeline import grid as grids

    if number is None:
        out_console.print(grids.listing(file))
    else:
        _run(grids.cell(file, number).run())


@app.command()
def methods() -> None:
    """What methods there are.

    [dim]ske methods[/dim]
    """
    from methods.table import METHODS
    from pipeline.show import listing

    out_console.print(listing("method", [(name, line.about) for name, line in METHODS.items()]))


@app.command()
def datasets() -> None:
    """What data sets there are, embedded and as files.

    [dim]ske datasets[/dim]
    """
    from eval.cases import datasets as forms
    from pipeline.show import listing
    from world.bench import benchmarks

    out_console.print(listing("data.name (embedded)", benchmarks()))
    out_console.print(listing("data.path (files)", forms()))


@app.command()
def doctor() -> None:
    """What this machine can run, and what to install for the rest.

    [dim]ske doctor[/dim]
    """
    from pipeline.health import checks

    out_console.print(checks())


@world_app.command("build")
def world_build(
    seed: Annotated[int, typer.Option(help="Another seed is another world.")] = 0,
    out: Annotated[Path, typer.Option(help="Where it goes.")] = Path("world"),
) -> None:
    """Rebuild a world, its benchmarks and its base model from nothing; resumes where it stopped.

    [dim]ske world build --seed 7 --out worlds/seven[/dim]
    """
    from pipeline.worlds import build

    build(seed, out, Console(stderr=True))


@world_app.command("card")
def world_card(
    path: Annotated[Path, typer.Option(help="A world's folder.")] = Path("world"),
) -> None:
    """Measure a world's base model and write its card (README.md and card.json).

    [dim]ske world card --path worlds/seven[/dim]
    """
    from pipeline.worlds import card

    out_console.print(card(path, Console(stderr=True)))


def _opened(path: Path, overrides: list[str] | None) -> Run:
    """A run from its folder, or from the configuration it was (or would be) made from."""
    if path.is_dir():
        if not (path / "config.yaml").exists():
            raise UserError(f"{path}: no config.yaml, so no run folder; runs are under runs/")
        return Run(load(path / "config.yaml", overrides), path)
    return Run(load(path, overrides), default_folder(path))


def main() -> None:
    """The console script."""
    # What torch and transformers will rename some day is no news for who edits facts.
    warnings.filterwarnings("ignore", category=FutureWarning)
    processes.yielding()
    interrupt.listen()
    processes.leave(_status())


def _status() -> int:
    """Do what the command line says; how it ended."""
    try:
        app()  # Exits by itself: 0, 2 for a wrong command line, 130 for Ctrl-C.
    except UserError as error:
        Console(stderr=True).print(
            f"[red]error:[/red] {_escaped(error)}", highlight=False, soft_wrap=True
        )
        return 2
    except SystemExit as stop:
        if stop.code == 130:
            Console(stderr=True).print("stopped; the same command goes on from here")
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception:
        Console(stderr=True).print_exception(width=100)
        return 1
    return 0


def _escaped(error: Exception) -> str:
    from rich.markup import escape

    return escape(str(error))


if __name__ == "__main__":
    main()
