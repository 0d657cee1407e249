"""Runs an export: from the manifest's rows to a complete folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath

from seedream_batch.errors import StorageError, UsageError
from seedream_batch.export.columns import Learner
from seedream_batch.export.csv_jsonl import Csv, JsonLines
from seedream_batch.export.imagefolder import ImageFolder
from seedream_batch.export.parquet import Parquet, arrow
from seedream_batch.export.split_layout import KINDS, Layout, Names
from seedream_batch.export.splits import Splits
from seedream_batch.export.stored_images import Picture, Pictures
from seedream_batch.export.webdataset import MIXED, WebDataset
from seedream_batch.export.writer import Plan, Writer
from seedream_batch.files.atomic import WholeFolder
from seedream_batch.files.destination import Destination
from seedream_batch.files.integrity import check, check_size
from seedream_batch.files.open_destination import destination
from seedream_batch.manifest.image_readers import DeliveryReader
from seedream_batch.model.cell import CellFilter
from seedream_batch.model.document import Json
from seedream_batch.model.job import Job
from seedream_batch.model.locations import Place
from seedream_batch.model.task import TaskSpec
from seedream_batch.selection.picks import Picks

MARKER = ".seedream-export.json"
"""File that marks a folder as an export."""

DEFAULT_SHARD_SIZE = 1_000_000_000
"""Size of a tar file in bytes."""


class Format(StrEnum):
    """Formats of an export."""

    IMAGEFOLDER = "imagefolder"
    WEBDATASET = "webdataset"
    PARQUET = "parquet"
    CSV = "csv"
    JSONL = "jsonl"


_WRITERS: Mapping[Format, type[Writer]] = {
    Format.IMAGEFOLDER: ImageFolder,
    Format.WEBDATASET: WebDataset,
    Format.PARQUET: Parquet,
    Format.CSV: Csv,
    Format.JSONL: JsonLines,
}

_FLAT = (Format.IMAGEFOLDER, Format.PARQUET, Format.CSV)
"""Formats whose rows have a column for each value."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How to export; `recorded` goes into the marker. `shard_size` in bytes."""

    format: Format
    to: Path
    splits: Splits | None = None
    chooses: CellFilter | None = None
    picks: Picks | None = None
    link: bool = True
    embed: bool = True
    verify: bool = False
    replace: bool = False
    shard_size: int = DEFAULT_SHARD_SIZE
    recorded: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export; `splits` is empty if there are none."""

    to: Path
    images: int
    not_stored: int
    bytes: int
    splits: Mapping[str, int]
    left_out: Sequence[str] = ()
    """Why entries of the picks matched nothing."""
    renamed: str = ""
    """The first path of which a folder was renamed, since `datasets` would take it for a split; empty if none."""


def export(job: Job, tasks: Callable[[], Iterable[TaskSpec]], manifest: Place, options: ExportOptions) -> Exported:
    """Export the stored images of the job's tasks. Nothing becomes visible before the export is complete.

    Raises `UsageError`, `StorageError`, `ManifestError` and `InvalidJob`.
    """
    _check(options)
    target = WholeFolder(options.to, MARKER, replace=options.replace)
    # Its name could be that of an image.
    if target.final.is_relative_to(job.output_dir.resolve()):
        raise UsageError(
            f"{target.final} is in the job's output folder; export to a folder outside of {job.output_dir}"
        )
    folder = destination(job)
    with DeliveryReader(manifest) as reader:
        reader.snapshot()
        pictures = Pictures(reader, tasks, options.chooses, options.picks)
        learn = options.format is not Format.JSONL
        scan = survey(pictures, folder, options.splits, learn=learn, verify=options.verify)
        left_out = options.picks.left_out() if options.picks else []
        if not scan.images:
            raise _nothing_to_export(scan, left_out if options.picks else None)
        splits = options.splits
        plan = _plan(job, target, folder, scan, options)
        with target:
            with _WRITERS[options.format](plan) as writer:
                for picture in pictures:
                    writer.add(picture, splits.of(picture.cell) if splits else "")
            if options.format is Format.IMAGEFOLDER and plan.layout is Layout.OWN:
                scan.splits = scan.names.own
            target.keep(_marker_content(job, scan, options))
    renamed = scan.names.renamed if options.format is Format.IMAGEFOLDER and plan.layout is Layout.SPLIT else ""
    return Exported(target.final, scan.images, scan.not_stored, scan.bytes, scan.splits, left_out, renamed)


def _nothing_to_export(scan: Survey, left_out: Sequence[str] | None) -> UsageError:
    """Return the error of an export without images; `left_out` is None if nothing was picked."""
    if left_out is None:
        why = f"none of {scan.not_stored:,} images is stored; generate them with `seedream-batch run`"
    else:
        why = "the choice contains no stored image" + "".join(f"\n  {reason}" for reason in left_out[:SHOWN])
    return UsageError(f"nothing to export: {why}")


def _plan(job: Job, target: WholeFolder, folder: Destination, scan: Survey, options: ExportOptions) -> Plan:
    """Return what the writer of the format needs. Raises `UsageError` if pyarrow is missing."""
    columns = scan.learner.columns(flat=options.format in _FLAT)
    if options.format is Format.IMAGEFOLDER and columns.dated:
        arrow(
            "text in the job looks like a date, so metadata.parquet is needed: `datasets` would read a date from"
            " metadata.jsonl. metadata.parquet needs pyarrow"
        )
    return Plan(
        job=job.name,
        target=target,
        folder=folder,
        link=options.link,
        columns=columns,
        ending=scan.endings.pop() if len(scan.endings) == 1 else MIXED,
        layout=Layout.SPLIT if options.splits else scan.names.layout,
        splits=options.splits.names if options.splits else ("",),
        embed=options.embed,
        shard_size=options.shard_size,
    )


def _check(options: ExportOptions) -> None:
    """Check the options before anything is read. Raises `UsageError`."""
    if options.format is Format.PARQUET:
        arrow("--format parquet needs pyarrow")
    if options.format is Format.IMAGEFOLDER and options.splits:
        seen: dict[str, str] = {}
        for name in options.splits.names:
            kind = KINDS.get(name)
            if kind is None:
                raise UsageError(
                    f"--split {name}: an imagefolder has the splits train, validation and test; `datasets` would put"
                    " another one among the training images"
                )
            if kind in seen:
                raise UsageError(f"--split {name}: `datasets` reads it and `{seen[kind]}` as the same split, {kind}")
            seen[kind] = name


def _marker_content(job: Job, scan: Survey, options: ExportOptions) -> Json:
    return {
        "seedream_batch_export": 1,
        "job": job.name,
        "format": str(options.format),
        "options": dict(options.recorded),
        "images": scan.images,
        "not_stored": scan.not_stored,
        "bytes": scan.bytes,
        "splits": scan.splits,
    }


SHOWN = 20
"""Most files that are named; all are counted."""


@dataclass(slots=True)
class Survey:
    """The result of a scan: images and bytes, and images per split."""

    images: int = 0
    not_stored: int = 0
    bytes: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    learner: Learner = field(default_factory=Learner)
    endings: set[str] = field(default_factory=set)
    """The extensions of the files."""


def survey(pictures: Pictures, folder: Destination, splits: Splits | None, *, learn: bool, verify: bool) -> Survey:
    """Check the size of every file, or its bytes with `verify`; with `learn`, also learn the columns.

    Raises `StorageError` naming the files that are missing or changed.
    """
    scan = Survey(splits=dict.fromkeys(splits.names, 0) if splits else {})
    faults: list[str] = []
    count = 0
    for stored, not_stored in pictures.by_task():
        scan.not_stored += not_stored
        for picture in stored:
            scan.images += 1
            scan.bytes += picture.file.bytes
            scan.names.learn(picture.path)
            scan.endings.add(PurePosixPath(picture.path).suffix)
            if learn:
                scan.learner.learn(picture)
            if splits:
                scan.splits[splits.of(picture.cell)] += 1
            fault = _fault(folder, picture, verify=verify)
            count += bool(fault)
            if fault and len(faults) < SHOWN:
                faults.append(fault)
    if count > len(faults):
        faults.append(f"and {count - len(faults):,} more")
    if faults:
        raise StorageError("\n  ".join(["nothing was exported, because these files are missing or changed:", *faults]))
    return scan


def _fault(folder: Destination, picture: Picture, *, verify: bool) -> str:
    """Return what is wrong with a file, and where it is; empty if nothing is."""
    try:
        result = check(folder, picture.file, deep=False) if verify else check_size(folder, picture.file)
    except StorageError as error:
        return str(error)
    return f"{folder.named(picture.file.path)}: {result.wrong}" if result.wrong else ""
