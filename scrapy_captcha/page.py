"""An HTML page in one file: it fetches nothing, runs no script, and escapes what it shows."""

from __future__ import annotations

import os
import uuid
from html import escape
from typing import TYPE_CHECKING

from scrapy_captcha.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

#: Enforced by the browser: pictures are part of the page, and nothing else is loaded or run.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, body: Iterable[str], style: str = "") -> str:
    """The whole page.

    :param title: text
    :param body: HTML, one section after the other
    :param style: CSS besides the common one
    """
    name = escape(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{STYLE}{style}</style></head><body><h1>{name}</h1>"
        f"{''.join(body)}</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """HTML under a heading, which is text."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def figure(drawn: str, caption: str) -> str:
    """HTML with a line of text below it, if there is one to say."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{drawn}{below}</figure>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], raw: int = -1) -> str:
    """A table of texts; the column ``raw`` holds HTML already."""
    body = "".join(
        "<tr>"
        + "".join(
            f"<td>{cell if i == raw else escape(str(cell))}</td>" for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    top = "".join(f"<th>{escape(name)}</th>" for name in head) if any(head) else ""
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """What matters most, large: names and values, which are text."""
    return "".join(
        (
            '<div class="tiles">',
            *(
                f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>"
                for name, value in figures
            ),
            "</div>",
        )
    )


def check_place(path: Path, what: str = "report") -> None:
    """Make sure that a page could be written there.

    :param what: what it is called when it could not
    :raises DatasetError: when its folder is missing or not writable, or it is a folder itself
    """
    parent = path.absolute().parent
    if path.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise DatasetError(f"cannot write the {what} {path}: expected a file in a writable folder")


def write(path: Path, text: str) -> None:
    """Write a page in one step, over an older one.

    :raises DatasetError: when it cannot be written
    """
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        try:
            unfinished.write_text(text, encoding="utf-8", errors="replace")
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as e:
        raise DatasetError(f"cannot write the report {path}: {e}") from None


STYLE = """
:root{color-scheme:light dark;--ink:light-dark(#1c2430,#e4e8ee);--soft:light-dark(#66707d,#98a2b0);
--rule:light-dark(#dfe3e8,#333b47);--card:light-dark(#f6f7f9,#1d232c);--a:light-dark(#1f6fc4,#6cb0f5);
--b:light-dark(#c2570c,#f2a35e)}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:light-dark(#fff,#14181e);
max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .6rem;border-top:1px solid var(--rule);
padding-top:1rem}
.tiles{display:flex;flex-wrap:wrap;gap:.7rem}
.tiles div{background:var(--card);border-radius:8px;padding:.6rem 1rem}
.tiles b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}
.tiles span,figcaption,.legend,th{color:var(--soft);font-size:.85rem}
.notes{padding-left:1.2rem}
section>figure{display:inline-block;vertical-align:top;margin:0 1rem 1rem 0;max-width:100%}
section>table{display:inline-table;vertical-align:top;margin:0 1.5rem 1rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:normal}
td,th{padding:.2rem .9rem .2rem 0;border-bottom:1px solid var(--rule);overflow-wrap:anywhere}
meter{width:14rem}
.legend{margin:0}.legend span{margin-right:1rem}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin-right:.35em}
svg{max-width:100%;height:auto}
svg text{font-size:11px;fill:var(--soft)}
svg path{fill:none}svg .grid{stroke:var(--rule)}svg .axis{stroke:var(--soft)}
svg .ideal{stroke:var(--soft);stroke-dasharray:4 4}
svg .mark path{stroke:var(--b);stroke-dasharray:2 3}svg .band{fill:var(--a);fill-opacity:.15}
svg path.s0{stroke:var(--a);stroke-width:2}svg path.s1{stroke:var(--b);stroke-width:2}
circle.s0{fill:var(--a)}circle.s1{fill:var(--b)}i.s0{background:var(--a)}i.s1{background:var(--b)}
""".replace("\n", "")
