"""CSV files in the Common Bill Format: the header is the law, and the columns are sent as they are named."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from finops_relay.errors import InputRefused
from finops_relay.formats.cost_cells import TAG, CellFault, Times, check_tag_key, nearest
from finops_relay.formats.cost_rows import CBF_COLUMNS, COST, START, CostColumns, CostPlan

NAMELESS = CellFault(
    "a value stands in a column without a name", "name the column in the header, or delete what stands under it"
)


class CbfForm:
    """The checks of one CBF file.

    Args:
        file: its name, for messages.
        line: 1-based line of its header.
        header: the names of its columns, each once.
        month: the first day of the month that every row must be in.

    Raises:
        InputRefused: the header has a column that the format does not have, or lacks one that it must have.
    """

    name = "cbf"

    def __init__(self, file: str, line: int, header: Sequence[str], month: date) -> None:
        self._nameless = [place for place, name in enumerate(header) if not name.strip()]
        self._places = [place for place, name in enumerate(header) if name.strip()]
        names = [header[place].strip() for place in self._places]
        try:
            for name in names:
                check_column(name)
        except CellFault as fault:
            raise InputRefused(fault.error, file=file, line=line, fix=fault.fix) from None
        for name in (START, COST):
            if name not in names:
                raise InputRefused(f"the header has no column {name}", file=file, line=line, fix=f"add {name}")
        self._plan = CostPlan(names, names, Times(month, naive=True, floored=False))

    def read(self, columns: Sequence[Sequence[str]]) -> CostColumns:
        """Checks some rows."""
        check_nameless(columns, self._nameless)
        return self._plan.read([columns[place] for place in self._places])


def check_nameless(columns: Sequence[Sequence[str]], places: Sequence[int]) -> None:
    """Refuses values in columns without a name; spreadsheets leave such columns behind, empty.

    Raises:
        CellFault: there is a value in one of the *places*.
    """
    if any(cell.strip() for place in places for cell in columns[place]):
        raise NAMELESS


def check_column(name: str) -> None:
    """Checks that the format has a column *name*.

    Raises:
        CellFault: it has not; the fix names the nearest one that it has.
    """
    if name in CBF_COLUMNS:
        return
    if name.startswith(TAG):
        check_tag_key(name.removeprefix(TAG))
        return
    near = nearest(name, CBF_COLUMNS)
    fix = f"name it {near}, if that is meant, or " if near else ""
    error = f"the Common Bill Format has no column {name[:60]!r}"
    raise CellFault(error, f"{fix}name it resource/tag:<key> to keep it as a tag, or delete it")
