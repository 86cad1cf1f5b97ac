"""The rows of checks and exports, which pages request."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kdnas_core.runs.jobs import ACTIVE, Kind
from kdnas_core.runs.records import Asked, Check, Export
from kdnas_core.runs.store.base import only
from kdnas_core.runs.store.measurements import Measurements
from kdnas_core.runs.store.rows import check_of, export_of
from kdnas_core.spec import ExportSpec

KEPT_S = 24 * 3_600  # how long the outcome of a check is kept for its page


class Requests(Measurements):
    """The tables of checks and exports."""

    def create_check(self, wanted: Kind, spec: Asked, sources: Sequence[str] = ()) -> int:
        """Queues the check of a request, and returns its id.

        Args:
            wanted: the kind of the requested work.
            spec: of that work.
            sources: the candidates, as in "12", and students, as in "s3", to work on.
        """
        with self._write():
            for row in self._select_work("checks"):
                other = check_of(row, self._leases)
                if other.state not in ACTIVE and other.created_at < time.time() - KEPT_S:
                    self._db.table("checks").delete(other.id)
            asked = {"wanted": wanted, "sources": list(sources), "spec": spec.model_dump_json()}
            return self._create("checks", asked, None)

    def check(self, check: int) -> Check:
        """Returns one check.

        Raises:
            BadInput: there is no such check.
        """
        missing = f"There is no check {check} in {self.path}; ask again for what it was of."
        return check_of(only(self._select_work("checks", id=check), missing), self._leases)

    def accept(self, check: int, queue: Callable[[], Sequence[int]]) -> bool:
        """Queues the work of a check and saves its ids, in one transaction.

        Queues nothing if the check was cancelled, or if it has queued its work before.

        Returns:
            Whether the work is queued; False if the check was cancelled first.
        """
        with self._write():
            row = self.check(check)
            if not row.made and row.request is None:
                self._set("checks", check, {"made": list(queue())})
            return bool(row.made) or row.request is None

    def create_export(
        self, spec: ExportSpec, *, candidate: int | None = None, student: int | None = None
    ) -> int:
        """Queues an export of a candidate or a student, and returns its id; replaces ended ones.

        If one is active, returns its id and queues nothing.

        Args:
            spec: has the folder and the formats.
            candidate: id of the candidate to export, or None.
            student: id of the student to export, or None.
        """
        with self._write():
            for other in self.exports(candidate=candidate, student=student):
                if other.state in ACTIVE:
                    return other.id
                self._db.table("exports").delete(other.id)
            return self._create("exports", self._row_of_model(spec, candidate, student), None)

    def exports(self, *, candidate: int | None = None, student: int | None = None) -> list[Export]:
        """Returns all exports, or those of a candidate itself or of a student; newest first."""
        rows = self._select_work("exports", candidate=candidate, student=student)
        return [export_of(row, self._leases) for row in rows]

    def export(self, export: int) -> Export:
        """Returns one export.

        Raises:
            BadInput: there is no such export.
        """
        missing = f"There is no export {export} in {self.path}; export it anew."
        return export_of(only(self._select_work("exports", id=export), missing), self._leases)
