"""Files of costs in any form, told apart by content: CBF, FOCUS or line items; CSV, JSON or NDJSON; plain or gzip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import BinaryIO, NoReturn, TypeVar

from finops_relay.errors import InputRefused
from finops_relay.formats.archives import Budget, csv_members, printable, refuse_other_kinds
from finops_relay.formats.cbf import CbfForm
from finops_relay.formats.cost_cells import CellFault, Times, plain_decimal
from finops_relay.formats.cost_records import Batch, Chosen, CostRecords, CsvRecords, Mending, Refusals, RowBatch
from finops_relay.formats.cost_rows import COST, START, CostBatch, CostForm, CostRow, CostTotals
from finops_relay.formats.csv_rows import Readable, RecordReader, csv_line, is_blank
from finops_relay.formats.focus import FocusForm
from finops_relay.formats.json_items import JsonItems, Kind, LineItems, Resumed, open_json
from finops_relay.formats.line_items import REQUIRED, LineItemForm, own_name
from finops_relay.formats.rejected_rows import RejectedRow

COST_BLOCK_BYTES = 96 * 1024
"""Bytes read at once: one or two hundred rows, whose cells still fit a processor's cache (measured)."""

_HEAD_BYTES = 4096
_ZIP = b"PK"
_FORMS = (
    "drop the costs as CSV in UTF-8 (CBF, FOCUS, or timestamp,cost,service,description), JSON or NDJSON, or its gzip"
)
_BOM = b"\xef\xbb\xbf"
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_NO_ROWS_FIX = "export it again and check that it has rows"

Checked = TypeVar("Checked")


def open_cost_file(name: str, source: BinaryIO, encoded_bytes: int, budget: Budget) -> BinaryIO:
    """Opens a dropped file of costs. Arguments and errors as of :func:`open_with_advice`."""
    return open_with_advice(_FORMS, name, source, encoded_bytes, budget)


def open_with_advice(advice: str, name: str, source: BinaryIO, encoded_bytes: int, budget: Budget) -> BinaryIO:
    """Opens a dropped file, gzip or plain, within the ceilings of *budget*.

    Args:
        advice: the forms in which such a file may be dropped, for whoever dropped another one.
        name: the decoded key of the file, for messages.
        source: seekable bytes of the file; stays open, and errors of its own pass through unchanged.
        encoded_bytes: the length of *source*.
        budget: what the delivery has used so far; goes on counting while the stream is read.

    Returns:
        The decoded bytes, from the beginning.

    Raises:
        InputRefused: it is an archive, a workbook or another kind of file, is damaged, or passes a ceiling.
    """
    source.seek(0)
    zipped = source.read(len(_ZIP)) == _ZIP
    try:
        members = list(csv_members(name, source, encoded_bytes, budget))
        stream = None if zipped else members[0].open()
    except InputRefused as refusal:
        raise _advised(refusal, advice) from refusal
    if stream is None:
        raise InputRefused("this is a zip archive", file=printable(name), fix=advice)
    return stream


def _advised(refusal: InputRefused, advice: str) -> InputRefused:
    """The refusal of a file with *advice*, where the advice was for price sheets."""
    fix = advice if "sheet" in refusal.fix or "CSV" in refusal.fix or ".csv" in refusal.fix else refusal.fix
    return InputRefused(refusal.reason, file=refusal.file, line=refusal.line, value=refusal.value, fix=fix)


def open_records(  # noqa: PLR0913 -- a file, and what is special about its form
    advice: str, name: str, stream: Readable, mending: Mending, kind: Kind, *, block_bytes: int
) -> CsvRecords | JsonItems:
    """The records of a file, after what its first bytes and, of CSV, the names in its header tell was judged.

    Args:
        advice: as for :func:`open_with_advice`.
        name: the file's name, for messages.
        stream: its decoded bytes.
        mending: what was mended.
        kind: of its objects, where it is JSON.
        block_bytes: how much is read at once.

    Raises:
        InputRefused: it is empty or of another kind, its JSON holds no such objects, or its header is unusable.
    """
    head = b""
    while len(head) < _HEAD_BYTES and (more := stream.read(_HEAD_BYTES - len(head))):
        head += more
    bare = head.removeprefix(_BOM).lstrip()
    if not bare and len(head) < _HEAD_BYTES:
        raise InputRefused("the file is empty", file=name, fix=_NO_ROWS_FIX)
    try:
        refuse_other_kinds(name, head)
    except InputRefused as refusal:
        raise _advised(refusal, advice) from refusal
    whole = Resumed(head, stream)
    if bare.startswith((b"[", b"{")):
        return open_json(name, whole, mending, kind)
    return CsvRecords(name, RecordReader(name, whole, block_bytes=block_bytes), mending)


def refuse_other_separators(name: str, header: Sequence[str], line: int) -> None:
    """Refuses a *header* that is no header because something else than commas separates its names.

    Raises:
        InputRefused: it is one.
    """
    text = csv_line(header)
    for separator, title in _SEPARATORS.items():
        if len(header) == 1 and separator in text:
            reason = f"the columns are separated by {title}, not by commas"
            fix = "save it with commas between the columns and points in the amounts"
            raise InputRefused(reason, file=name, line=line, value=text, fix=fix)


def refuse_no_rows(name: str) -> NoReturn:
    """Refuses a file without rows. Raises InputRefused."""
    raise InputRefused("the file has no rows", file=name, fix=_NO_ROWS_FIX)


def judged(
    name: str, batch: Batch, read: Callable[[Sequence[Sequence[str]]], Checked]
) -> Iterator[tuple[Batch, Checked] | RejectedRow]:
    """Rows that are all right, all at once; otherwise each part for itself, down to the rows that are not.

    Args:
        name: the file's name, for messages.
        batch: the rows; blank ones are left out.
        read: what checks their cells, by column, and remembers nothing of them if it raises CellFault. What was read of
            a part is handed out before the next part is read.

    Raises:
        InputRefused: because of a row no other row of the file can be delivered.
    """
    try:
        checked = read(batch.by_column())
    except CellFault as fault:
        if isinstance(batch, RowBatch) and len(batch.values) == 1:
            yield from _rejected(name, batch, fault)
            return
        for part in batch.parts():
            yield from judged(name, part, read)
        return
    yield batch, checked


def _rejected(name: str, record: RowBatch, fault: CellFault) -> list[RejectedRow]:
    """The only record of a batch as a rejected row; nothing when it is blank."""
    line, values = record.lines[0], tuple(record.values[0])
    if record.blanks and is_blank(values):
        return []
    if fault.whole_file:
        raise InputRefused(fault.error, file=name, line=line, fix=fault.fix) from None
    return [RejectedRow(line, record.columns, values, fault.error, fault.fix)]


def readable_cost(form: str, row: RejectedRow) -> Decimal | None:
    """What a rejected row of a file in this *form* costs, as far as that can be told.

    None when its cost is blank or unclear, stands twice, or when a row of another width than the header's may have any
    column's value there.
    """
    if len(row.values) != len(row.columns):
        return None
    texts = [text for name, text in zip(row.columns, row.values, strict=True) if _is_cost(form, name) and text.strip()]
    try:
        return Decimal(plain_decimal(texts[0])) if len(texts) == 1 else None
    except CellFault:
        return None


def _is_cost(form: str, column: str) -> bool:
    """Whether a *column* of a file in this *form* is the one that becomes ``cost/cost``."""
    if form == LineItemForm.name:
        return own_name(column) == "cost"
    return column.strip() == {CbfForm.name: COST, FocusForm.name: "BilledCost"}.get(form)


class CostFileReader:
    """Reads one file of costs for one month, once.

    Args:
        name: the file's name, for messages.
        month: the first day of the month that every row must be in.
        mended: values by column that replace, before any check, those of the row that begins on this line (of a JSON
            array: of the element with this number).
        refused: what is wrong and what to do, for rows that are to be rejected whatever else is right with them; by
            line, as for *mended*, which comes first.
        only: lines of the rows that are read; all others are left out and not counted. None reads every row.
        budget: where rows are counted, if anywhere.
        block_bytes: how much is read at once; it never shows in the rows.

    Raises:
        ValueError: *month* is no first day of a month.
    """

    def __init__(  # noqa: PLR0913 -- a file, and what is special about reading it this time
        self,
        name: str,
        month: date,
        mended: Mapping[int, Mapping[str, str]] | None = None,
        *,
        refused: Mapping[int, tuple[str, str]] | None = None,
        only: frozenset[int] | None = None,
        budget: Budget | None = None,
        block_bytes: int = COST_BLOCK_BYTES,
    ) -> None:
        self._name = name
        self._month = month
        self._item_times = Times(month, naive=False, floored=False)
        self._mending = Mending(name, mended)
        self._refusals = Refusals(refused)
        self._only = only
        self._chosen = Chosen(only)
        self._budget = budget
        self._block_bytes = block_bytes
        self._totals = CostTotals()
        self._noted: Counter[str] = Counter()
        self.form = ""
        """``cbf``, ``focus`` or ``line_items``; empty before the file was recognised."""
        self.columns: tuple[str, ...] = ()
        """The file's header as it stood; of JSON the names in first-seen order."""
        self.rows_in = 0
        """Rows read so far: those that were accepted and those that were rejected."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was changed in the rows read so far and how often, and whether the totals of their columns differ."""
        totals = self._totals.warning()
        return (*(f"{count} {note}" for note, count in sorted(self._noted.items())), *([totals] if totals else []))

    def rows(self, stream: Readable) -> Iterator[CostRow | RejectedRow]:
        """Every row of the file, in its order. Arguments and errors as of :meth:`batches`."""
        for batch in self.batches(stream):
            if isinstance(batch, RejectedRow):
                yield batch
            else:
                yield from batch.rows()

    def batches(self, stream: Readable) -> Iterator[CostBatch | RejectedRow]:
        """Every row of the file, in its order; those that are fit to be sent many at a time, however many that is.

        Args:
            stream: the file's decoded bytes.

        Raises:
            InputRefused: no row of the file can be delivered: it is in no known form, has an unusable header, no rows,
                or another currency; or a mended row does not belong to it.
        """
        records, form = self._opened(stream)
        columns = records.columns
        for whole in records.batches():
            self.columns = records.columns
            if whole.columns != columns:  # only JSON goes on to find names
                columns = whole.columns
                form = LineItemForm(columns, self._item_times)
            for chosen in self._chosen.of(whole):
                yield from self._told(form, chosen)
        self._mending.finish()
        if not self.rows_in and self._only is None:
            refuse_no_rows(self._name)

    def _told(self, form: CostForm, whole: Batch | RejectedRow) -> Iterator[CostBatch | RejectedRow]:
        """Records as rows, counted."""
        for batch in self._refusals.apart(whole):
            for judged in [batch] if isinstance(batch, RejectedRow) else self._judged(form, batch):
                self._count(1 if isinstance(judged, RejectedRow) else len(judged.lines))
                yield judged

    def _opened(self, stream: Readable) -> tuple[CostRecords, CostForm]:
        """The file's records and their form."""
        records = open_records(_FORMS, self._name, stream, self._mending, LineItems(), block_bytes=self._block_bytes)
        if isinstance(records, JsonItems):
            self.form = LineItemForm.name
            return records, LineItemForm(records.columns, self._item_times)
        self.columns = records.columns
        form = self._csv_form(records)
        self.form = form.name
        return records, form

    def _csv_form(self, records: CsvRecords) -> CostForm:
        """The form of a CSV file, by the names in its header."""
        header, line = records.columns, records.header_line
        names = {column.strip() for column in header}
        if names & {START, COST}:
            return CbfForm(self._name, line, header, self._month)
        if names & {"ChargePeriodStart", "BilledCost"}:
            return FocusForm(self._name, line, header, self._month)
        missing = set(REQUIRED) - {own_name(column) for column in header}
        if missing:
            raise self._unknown_header(header, line)
        form = LineItemForm(header, self._item_times)
        for place, fault in form.faults.items():
            if header[place].strip():
                raise InputRefused(fault.error, file=self._name, line=line, value=header[place], fix=fault.fix)
        return form

    def _unknown_header(self, header: Sequence[str], line: int) -> InputRefused:
        refuse_other_separators(self._name, header, line)
        reason = "the first line is no header of CBF, FOCUS or line items"
        return InputRefused(reason, file=self._name, line=line, value=csv_line(header), fix=_FORMS)

    def _judged(self, form: CostForm, batch: Batch) -> Iterator[CostBatch | RejectedRow]:
        """The rows of a batch, and what they add to the totals."""
        for one in judged(self._name, batch, form.read):
            if isinstance(one, RejectedRow):
                yield one
                continue
            part, checked = one
            self._totals.add(checked)
            self._noted.update(checked.noted)
            yield CostBatch(part.lines, checked)

    def _count(self, rows: int) -> None:
        self.rows_in += rows
        if self._budget is not None:
            self._budget.count_rows(self._name, rows)
