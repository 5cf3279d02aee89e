"""What compression costs, as a value, as JSON, and as a page that people look at."""

from sd_compress.report.page import render_page
from sd_compress.report.report import (
    FORMAT,
    VERSION,
    Candidate,
    Environment,
    LayerRow,
    OutputSnr,
    Part,
    Report,
    ReportError,
    Sensitivity,
    read_report,
    report_json,
)

__all__ = [
    "FORMAT",
    "VERSION",
    "Candidate",
    "Environment",
    "LayerRow",
    "OutputSnr",
    "Part",
    "Report",
    "ReportError",
    "Sensitivity",
    "read_report",
    "render_page",
    "report_json",
]
