from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import pytest
from drawn_captchas import captcha
from PIL import Image

from scrapy_captcha import charts
from scrapy_captcha.errors import DatasetError
from scrapy_captcha.page import write
from scrapy_captcha.recognizer import Recognition
from trainer.corpus import Sample
from trainer.evaluate import score
from trainer.report import Report


@dataclass
class Epoch:
    number: int
    step: int
    loss: float
    holdout_loss: float | None = None
    exact_match: float | None = None
    best: bool = False


def report(pairs, **changes):
    """A report on (label, what was read) pairs; the confidence falls from one to the next."""
    samples = [Sample(f"{a}.png", a, captcha("ab", i)) for i, (a, _) in enumerate(pairs)]
    readings = [
        None if text is None else Recognition(text, 0.95 - i / 1000, ())
        for i, (_, text) in enumerate(pairs)
    ]
    found = score(readings, [a for a, _ in pairs])
    return Report("site", "some images", samples, readings, found, **changes)


def parsed(page):
    """The page as XML; it has no void elements but these two."""
    text = re.sub(r"<(meta|img)([^>]*)>", r"<\1\2/>", page.removeprefix("<!doctype html>"))
    return ET.fromstring(text)


def test_the_page_is_whole_and_needs_nothing_from_elsewhere():
    history = [Epoch(1, 40, 1.5, 1.2, 0.1), Epoch(2, 80, 0.5, 0.4, 0.8, best=True)]
    page = report([("ab", "ab"), ("ba", "bb")] * 30, history=history).to_html()
    tree = parsed(page)
    sources = [image.get("src") for image in tree.iter("img")]
    assert len(sources) == 30
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert [h.text for h in tree.iter("h2")] == [
        "Training",
        "Accuracy per position",
        "Confusion of characters",
        "Calibration",
        "Coverage and precision",
        "Wrong, the most confident first",
        "Settings",
        "Versions",
    ]


def test_the_wrongest_images_are_shown_as_they_are_read():
    page = report([("ab", "ab"), ("cd", "ce"), ("ef", "eg")]).to_html()
    tree = parsed(page)
    captions = ["".join(f.itertext()) for f in tree.iter("figure") if f.get("title")]
    assert captions == ["cd read as ce 0.949", "ef read as eg 0.948"]
    data = base64.b64decode(next(tree.iter("img")).get("src").partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == Image.open(io.BytesIO(captcha("ab", 1))).size


def test_characters_taken_for_others_are_counted_by_pair():
    pairs = [("o1", "01")] * 3 + [("1o", "lo"), ("oo", "oo"), ("ooo", "oo"), ("11", None)]
    page = report(pairs).to_html()
    rows = [["".join(c.itertext()) for c in row.iter("td")] for row in parsed(page).iter("tr")]
    assert ["o", "0", "3", "0.333"] in rows
    assert ["1", "l", "1", "0.167"] in rows
    assert "2 readings of another length are not in this." in page
    assert "<title>o read as 0: 3</title>" in page


def test_labels_and_names_are_text_whatever_they_hold():
    page = report([("<b>&", '<i>"')], notes=["<script>"], settings={"<u>": "<s>"}).to_html()
    assert not re.search("<script>|<b>&<|<u>|<s>", page)
    caption = next(f for f in parsed(page).iter("figure") if f.get("title"))
    assert "".join(caption.itertext()).startswith('<b>& read as <i>"')


def test_an_image_that_does_not_decode_is_named_without_a_picture():
    broken = report([("ab", None)])
    broken.samples[0] = Sample("ab.png", "ab", b"no image")
    page = broken.to_html()
    assert "read as unreadable" in page
    assert "<img" not in page


def test_a_page_without_errors_or_images_held_out_is_whole_too():
    page = report([("ab", "ab")], measured=False, history=[Epoch(1, 5, 2.0)]).to_html()
    assert "0 of 1 are wrong." in page
    assert "No images were held out to compare with." in page
    parsed(page)


def test_a_page_replaces_the_one_before_in_one_step(tmp_path):
    place = tmp_path / "report.html"
    for text in ("one", "two \udcff"):
        write(place, text)
    assert place.read_text(encoding="utf-8") == "two ?"
    assert list(tmp_path.iterdir()) == [place]
    with pytest.raises(DatasetError, match="cannot write the report"):
        write(tmp_path / "nowhere" / "report.html", "three")


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 24, [0, 5, 10, 15, 20]),
        (0.97, 1, [0.97, 0.98, 0.99, 1]),
    ],
)
def test_axes_are_marked_at_round_values(low, high, ticks):
    assert charts.Axis("x", low, high).ticks() == ticks


def test_a_chart_holds_what_is_no_number_and_a_single_point():
    x, y = charts.around("step", [3.0], 0.0), charts.around("loss", [float("nan"), 2.0], 0.0)
    drawn = charts.chart(x, y, [charts.Series("loss", [(3.0, 2.0), (4.0, float("nan"))])])
    tree = ET.fromstring(drawn)
    assert len(list(tree.iter("circle"))) == 1
    assert "nan" not in drawn
