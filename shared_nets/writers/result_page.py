"""One result as one HTML file: no script, nothing from elsewhere; for a phone, a dark room and paper too."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

from shared_nets.types import CKDResult, Finding, KidneyResult, LesionResult, StudyResult
from shared_nets.writers.kidney_page import ckd_page, kidney_page
from shared_nets.writers.lesion_page import lesion_page
from shared_nets.writers.page_parts import (
    PageContent,
    escaped,
    finding_list,
    named_table,
    notice_box,
    section,
    tag,
    text_list,
    warning_box,
)

#: Colours of text and ground by name, for a light and a dark display.
COLOURS = {
    "light": {
        "ground": "#ffffff", "ink": "#1b1f23", "faint": "#57606a", "line": "#d0d7de", "bar": "#0b5cad",
        "track": "#e6ebf0", "notice": "#fff1d6", "notice-ink": "#5c3900", "warning": "#fde7e4",
        "warning-ink": "#7d1a12",
    },
    "dark": {
        "ground": "#101418", "ink": "#f0f3f6", "faint": "#a9b4bf", "line": "#3a434c", "bar": "#6cb1ff",
        "track": "#262d34", "notice": "#3a2c0c", "notice-ink": "#ffe2a8", "warning": "#431b18",
        "warning-ink": "#ffd2cc",
    },
}  # fmt: skip
_STYLE = """
html { font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  color: var(--ink); background: var(--ground); -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { max-width: 60rem; margin: 0 auto; padding: 0 1rem 2rem; overflow-wrap: anywhere; }
h1 { font-size: 1.25rem; margin: 1rem 0 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
.answer { font-size: 2.25rem; font-weight: 700; line-height: 1.2; margin: .25rem 0; }
.faint { color: var(--faint); }
.notice, .warnings { border-radius: .5rem; padding: .75rem 1rem; margin: 1rem 0; }
.notice { background: var(--notice); color: var(--notice-ink); font-weight: 600; }
.warnings { background: var(--warning); color: var(--warning-ink); }
.warnings h2 { margin: 0 0 .5rem; border: 0; }
.warnings ul { margin: 0; }
ul { padding-left: 1.25rem; }
code { font-size: 1rem; }
figure { margin: 1rem 0; }
img { display: block; width: 100%; height: auto; background: #101418; border-radius: .5rem; }
table { width: 100%; border-collapse: collapse; }
caption { text-align: left; color: var(--faint); padding: 1rem 0 .25rem; }
h2 + table caption { padding-top: .25rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
th, td { text-align: left; vertical-align: top; padding: .375rem .75rem .375rem 0;
  border-bottom: 1px solid var(--line); font-size: 1rem; }
th[scope=row] { font-weight: 600; }
thead th, .sizes, .bars { overflow-wrap: normal; }
.names { table-layout: fixed; }
.names th:first-child { width: 42%; }
.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
.track { display: block; height: 1rem; min-width: 3rem; background: var(--track); border-radius: .25rem; }
.bar { display: block; height: 100%; background: var(--bar); border-radius: .25rem; }
.bars th, .bars .number { width: 1%; }
.bars td:last-child { padding-right: 0; vertical-align: middle; }
.chosen th, .chosen td { font-weight: 700; }
@media print {
  html { font-size: 11pt; }
  body { max-width: none; padding: 0; }
  .notice, .warnings, figure, tr { break-inside: avoid; }
  h2, h3, caption, thead { break-after: avoid; }
  .notice:last-child { margin-bottom: 0; }
  .notice, .warnings { border: 1px solid currentColor; }
  .bar, .track { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
#: Nothing may be fetched or run, even if a text were not escaped.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


#: What is particular to each kind of result.
_CONTENTS: dict[type, Callable[[Any], PageContent]] = {
    CKDResult: ckd_page,
    KidneyResult: kidney_page,
    LesionResult: lesion_page,
}


def page_content(result: StudyResult) -> PageContent:
    """Give what is particular to the page of this kind of result."""
    return _CONTENTS[type(result)](result)


def result_page(result: StudyResult, *, picture_png: bytes | None) -> bytes:
    """Write a result as one HTML page for people.

    Args:
        result: the result, provenance complete.
        picture_png: the picture of the result; ``None`` leaves it out.

    Returns:
        A self-contained HTML file in UTF-8. Equal input gives equal bytes. Texts of the result stay texts.
    """
    content = page_content(result)
    title = f"{content.kind} · {result.study_id}"
    parts = [
        notice_box(result.notice),
        tag("h1", title),
        f'<p class="faint">{escaped(content.question)}</p>',
        f'<p class="answer">{escaped(content.answer)}</p>',
        tag("p", content.lead),
        *content.before_warnings,
        _warnings(result.warnings),
        _picture(content.alternative, picture_png),
        *content.sections,
        *section("What this cannot show", text_list(result.statements)),
        *_provenance(result),
        notice_box(result.notice),
    ]
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<meta name="referrer" content="no-referrer">',
        '<meta name="robots" content="noindex">',
        tag("title", title),
        f"<style>{_variables()}{_STYLE}{content.style}</style>",
    ]
    body = "\n".join(part for part in parts if part)
    page = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", "<main>", body,
            "</main>", "</body>", "</html>"]  # fmt: skip
    return ("\n".join(page) + "\n").encode()


def _warnings(warnings: Sequence[Finding]) -> str:
    return warning_box("Warnings", "warnings", warnings) if warnings else "<p>No warnings.</p>"


def _picture(alternative: str, png: bytes | None) -> str:
    if png is None:
        return ""
    data = base64.b64encode(png).decode("ascii")
    return f'<figure><img src="data:image/png;base64,{data}" alt="{escaped(alternative)}"></figure>'


def _provenance(result: StudyResult) -> list[str]:
    made = result.provenance
    software = {
        "bundle": f"{made.bundle} {made.bundle_version}",
        "configuration, sha256": made.config_sha256,
        **{f"weights {name}, sha256": digest for name, digest in made.weights_sha256.items()},
    }
    tables = [
        named_table("Software", software),
        named_table("Packages", made.packages),
        named_table("Image", made.image),
        named_table("Mask", made.mask),
        named_table("Thresholds", made.thresholds),
    ]
    repairs = finding_list(made.repairs) if made.repairs else "<p>None.</p>"
    return section("Provenance", *tables, "<h3>Repairs</h3>", repairs)


def _variables() -> str:
    light, dark = ("".join(f"--{n}:{c};" for n, c in COLOURS[k].items()) for k in ("light", "dark"))
    return (
        f":root {{ color-scheme: light dark; {light} }}\n"
        f"@media (prefers-color-scheme: dark) {{ @media screen {{ :root {{ {dark} }} }} }}"
    )
