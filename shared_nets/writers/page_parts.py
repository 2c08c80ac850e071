"""The small parts that pages of results are put together from: tags, tables and lists, all texts escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared_nets.types import Finding
from shared_nets.writers.result_words import unit_in_words


@dataclass(frozen=True, kw_only=True)
class PageContent:
    """What is particular to the page of one kind of result.

    Args:
        kind: what the result is of; the title begins with it.
        question: what the answer is an answer to.
        answer: the answer, in large letters.
        lead: sentences below it.
        before_warnings: HTML between the answer and the warnings.
        alternative: what the picture shows, for people who do not see it.
        sections: HTML behind the picture.
        style: CSS beside that of all pages.
    """

    kind: str
    question: str
    answer: str
    lead: str
    alternative: str
    sections: Sequence[str]
    before_warnings: Sequence[str] = ()
    style: str = ""


def clinical_value(entry: Mapping[str, Any]) -> str:
    """Write a value that a person or a form supplied, with its unit."""
    value, unit = entry["value"], entry.get("unit") or ""
    number = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{number} {unit_in_words(unit)}".strip()


def warning_box(heading: str, identifier: str, findings: Sequence[Finding]) -> str:
    """Write findings so that nobody overlooks them."""
    heading = f'<h2 id="{identifier}">{escaped(heading)}</h2>'
    opening = f'<section class="warnings" aria-labelledby="{identifier}">'
    return f"{opening}{heading}{finding_list(findings)}</section>"


def named_table(caption: str, values: Mapping[str, Any]) -> str:
    """Write values by name, those inside others too; nothing where there are none."""
    rows = [[name, value] for name, value in _flat(values)]
    return table(caption, ["Name", "Value"], rows, kind="names") if rows else ""


def section(heading: str, *parts: str) -> list[str]:
    """Put HTML under a heading; empty parts are left out."""
    return [f"<section><h2>{escaped(heading)}</h2>", *(part for part in parts if part), "</section>"]


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "") -> str:
    """Write a table of texts; the first cell of a row is its name, and ``kind`` its CSS class."""
    names = "".join(f'<th scope="col">{escaped(column)}</th>' for column in columns)
    lines = "".join(
        f'<tr><th scope="row">{_name(name)}</th>{"".join(tag("td", cell) for cell in cells)}</tr>'
        for name, *cells in rows
    )
    opening = f'<table class="{kind}">' if kind else "<table>"
    head = f"<caption>{escaped(caption)}</caption><thead><tr>{names}</tr></thead>"
    return f"{opening}{head}<tbody>{lines}</tbody></table>"


def bar(share: float) -> str:
    """Draw a bar as long as a share, 0 to 1."""
    return f'<span class="track"><span class="bar" style="width:{100 * share:.1f}%"></span></span>'


def finding_list(findings: Sequence[Finding]) -> str:
    """List findings with their codes."""
    items = (f"<li>{escaped(one.message)} <code>{escaped(one.code)}</code></li>" for one in findings)
    return f"<ul>{''.join(items)}</ul>"


def text_list(texts: Sequence[str]) -> str:
    """List texts."""
    return f"<ul>{''.join(tag('li', text) for text in texts)}</ul>"


def notice_box(text: str) -> str:
    """Write what a reader must see first and last."""
    return f'<p class="notice" role="note">{escaped(text)}</p>'


def tag(name: str, text: str) -> str:
    """Put a text into an element."""
    return f"<{name}>{escaped(text)}</{name}>"


def escaped(text: object) -> str:
    """Turn a text into HTML that shows it."""
    return html.escape(str(text))


def words(name: str) -> str:
    """Write a name in code as words."""
    return name.replace("_", " ")


def _flat(values: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}: ")
        else:
            words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_plain)
            yield before + name, "not set" if value is None else words


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _name(text: str) -> str:
    """A name that may break behind its underscores."""
    return escaped(text).replace("_", "_<wbr>")
