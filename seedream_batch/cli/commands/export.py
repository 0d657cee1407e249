"""`seedream-batch export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seedream_batch.cli.options import EMULATE, JOB, MANIFEST, SELECT, OutputPath
from seedream_batch.cli.output.console import give, number, say, short, size, wrapped
from seedream_batch.errors import UsageError

if TYPE_CHECKING:
    from seedream_batch.export.dataset import Exported, ExportOptions
    from seedream_batch.export.splits import Splits
    from seedream_batch.model.job import Job
    from seedream_batch.selection.picks import Picks

_FORMATS = ("imagefolder", "webdataset", "parquet", "csv", "jsonl")

_EPILOG = """\b
Examples:
  seedream-batch export jobs/dataset.yaml --format imagefolder --to data/animals
  seedream-batch export jobs/dataset.yaml --format csv --to data/animals --select subject.label=red-fox
  seedream-batch export jobs/dataset.yaml --format csv --to data/best --choice dataset-choice.json
  seedream-batch export jobs/dataset.yaml --format webdataset --to data/animals \\
    --split train=0.9,test=0.1 --group-by subject.id

Exports the stored images of the tasks in JOB. Images that are not stored yet are counted and skipped; the exit code is
still 0. Works during a run, offline and without a key.

The folder appears only when the export is complete. Existing files are never overwritten; --replace replaces an earlier
export."""


@click.command("export", epilog=_EPILOG)
@JOB
@click.option("--format", "form", type=click.Choice(_FORMATS), required=True, help="Format of the dataset.")
@click.option("--to", type=OutputPath(path_type=Path), required=True, metavar="DIR", help="Folder to create.")
@SELECT
@click.option(
    "--choice",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Export only the images kept in the gallery or, if none were kept, all except the rejected ones. FILE is the"
    " file that the gallery exports.",
)
@click.option(
    "--flagged/--no-flagged",
    default=None,
    help="Export only flagged images, which differ from the request, or all except those.",
)
@click.option(
    "--split",
    metavar="NAME=FRACTION,...",
    help="Split the images, for example train=0.9,test=0.1. An image is always in the same split.",
)
@click.option(
    "--group-by",
    metavar="AXIS[.KEY]",
    help="With --split: keep images with the same value in the same split.  [default: the samples of each cell]",
)
@click.option("--link/--copy", default=None, help="Link the files where possible (default) or copy them.")
@click.option(
    "--images",
    type=click.Choice(["embed", "path"]),
    help="With parquet: store images in the table (default) or as files next to it.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    metavar="BYTES",
    help="With webdataset: maximum size of a tar file.  [default: 1,000,000,000]",
)
@click.option("--verify", is_flag=True, help="Check the SHA-256 of each file, not only its size.")
@click.option("--replace", is_flag=True, help="Replace an earlier export, including any other files in its folder.")
@EMULATE
@MANIFEST
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(**given: Any) -> int:
    """Export the stored images of JOB as a dataset, with their metadata."""
    from seedream_batch.cli.job_target import made
    from seedream_batch.cli.output.picks_view import show_left_alone
    from seedream_batch.export.dataset import export

    flags = _Flags(**given)
    _check_options(flags)
    loaded = made(flags.job, emulate=flags.emulate, manifest=flags.manifest)
    options = _export_options(flags, loaded.job)
    exported = export(loaded.job, loaded.tasks, loaded.job.manifest, options)
    _report_gaps(exported, options.splits)
    if exported.left_out:
        show_left_alone(exported.left_out, "of the choice skipped", err=True)
    if flags.as_json:
        give(
            {
                "format": flags.form,
                "to": str(exported.to),
                "images": exported.images,
                "not_stored": exported.not_stored,
                "left_out_of_the_choice": list(exported.left_out),
                "splits": dict(exported.splits),
                "bytes": exported.bytes,
            }
        )
    else:
        _show(exported, loaded.job.name, flags.form)
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flags:
    """The parameters of the command line; None for an option that was not given."""

    job: str
    form: str
    to: Path
    select: tuple[str, ...]
    choice: Path | None
    flagged: bool | None
    split: str | None
    group_by: str | None
    link: bool | None
    images: str | None
    shard_size: int | None
    verify: bool
    replace: bool
    emulate: bool
    manifest: str | None
    as_json: bool


def _export_options(flags: _Flags, job: Job) -> ExportOptions:
    from seedream_batch.export.dataset import DEFAULT_SHARD_SIZE, ExportOptions, Format
    from seedream_batch.export.splits import parsed
    from seedream_batch.selection.cell_filter import chosen, grouping

    group = grouping(flags.group_by, job) if flags.group_by else ()
    recorded = {
        "split": flags.split, "group_by": flags.group_by, "select": list(flags.select),
        "choice": flags.choice and flags.choice.name,
        "flagged": None if flags.flagged is None else str(flags.flagged).lower(),
        "copy": flags.link is False, "images": flags.images, "shard_size": flags.shard_size, "verify": flags.verify,
    }  # fmt: skip
    return ExportOptions(
        format=Format(flags.form),
        to=flags.to,
        splits=parsed(flags.split, group) if flags.split else None,
        chooses=chosen(flags.select, job) if flags.select else None,
        picks=_picks(flags, job),
        link=flags.link is not False,
        embed=flags.images != "path",
        verify=flags.verify,
        replace=flags.replace,
        shard_size=flags.shard_size or DEFAULT_SHARD_SIZE,
        recorded={name: value for name, value in recorded.items() if value},
    )


def _picks(flags: _Flags, job: Job) -> Picks | None:
    from seedream_batch.cli.output.picks_view import flagged_choice, read_choice
    from seedream_batch.selection.picks import Picks

    if flags.choice is not None:
        return Picks(read_choice(flags.choice, job))
    return None if flags.flagged is None else Picks(flagged_choice(job, keep=flags.flagged))


def _check_options(flags: _Flags) -> None:
    """Raise `UsageError` for options that contradict each other or that the format does not use."""
    form, images, link = flags.form, flags.images, flags.link
    if flags.choice is not None and flags.flagged is not None:
        raise UsageError("use --choice or --flagged, not both")
    if flags.group_by and not flags.split:
        raise UsageError(f"--group-by {flags.group_by} needs --split")
    if images and form != "parquet":
        raise UsageError(f"--images {images} works only with --format parquet; {form} stores images as files")
    if flags.shard_size and form != "webdataset":
        raise UsageError(f"--shard-size works only with --format webdataset; {form} has no shards")
    inside = form == "webdataset" or (form == "parquet" and images != "path")
    if link is not None and inside:
        how = "--link" if link else "--copy"
        more = "; add --images path" if form == "parquet" else ""
        raise UsageError(f"{how} has no effect: {form} stores images inside its own files{more}")


_DEVIATION = 0.05
"""How far the share of a split may be from the requested one without a message."""


def _report_gaps(exported: Exported, splits: Splits | None) -> None:
    """Report missing images, and splits that are empty or far from what was requested, on standard error."""
    from seedream_batch.export.split_layout import unmistakable

    lacking = exported.not_stored
    if lacking:
        expected = exported.images + lacking
        are = "is" if lacking == 1 else "are"
        say(wrapped(f"exporting {exported.images:,} of {expected:,} images; {lacking:,} {are} not stored"), err=True)
    for name, count in exported.splits.items():
        if not count:
            say(wrapped(f"the split {name} is empty: there are too few groups for its fraction"), err=True)
    fractions = splits.fractions if splits else {}
    shares = {name: exported.splits[name] / exported.images for name in fractions}
    off = any(abs(shares[name] - fraction) > _DEVIATION for name, fraction in fractions.items())
    if off and all(shares.values()):
        each = "; ".join(f"{name} {shares[name]:.0%}, not {float(of):.0%}" for name, of in fractions.items())
        say(wrapped(f"few groups, so the splits are inexact: {each}"), err=True)
    if exported.renamed:
        was, now = exported.renamed.rpartition("/")[0], unmistakable(exported.renamed).rpartition("/")[0]
        say(wrapped(f"renamed {was} to {now}: `datasets` would take it for a split"), err=True)


def _show(exported: Exported, job: str, form: str) -> None:
    say(wrapped(f"{job}: {number(exported.images, 'image')} exported as {form}, {size(exported.bytes)}"))
    for name, count in exported.splits.items():
        say(f"  {name:<11}{number(count, 'image')}")
    say(f"  in         {short(exported.to)}")
