"""Export: a candidate or a student as one folder that stock libraries load, checked before it is offered."""

from kdnas_core.export.formats import FORMATS, Format, parse_formats
from kdnas_core.export.making import export_student
from kdnas_core.export.reading import Exported, read_export
from kdnas_core.export.sums import sha256

__all__ = ["FORMATS", "Exported", "Format", "export_student", "parse_formats", "read_export", "sha256"]
