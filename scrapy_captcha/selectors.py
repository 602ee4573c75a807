"""CSS selectors whose cost grows with a page, and not with the square of it.

Translated to one XPath, which is what other selectors do, ``form.gate input`` takes libxml2 minutes
on a page that has ten thousand inputs within some hundred nested forms. Here XPath finds what
matches each part of a selector alone; how the parts stand to one another is seen to afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cssselect import SelectorError
from cssselect.parser import (
    CombinedSelector,
    Element,
    Function,
    FunctionalPseudoElement,
    Matching,
    Negation,
    Pseudo,
    Relation,
    SpecificityAdjustment,
    parse,
)
from lxml import etree
from parsel.csstranslator import HTMLTranslator

if TYPE_CHECKING:
    from collections.abc import Callable

    from cssselect.parser import PseudoElement, Tree
    from lxml.html import HtmlElement

    Elements = set[HtmlElement]
    Known = dict[HtmlElement, bool]

#: Of a page that is asked for a selector that may be slow.
TAGS_FOR_SLOW = 1_000
_QUICK_PSEUDO_CLASSES = frozenset({"checked", "link", "root"})
_translator = HTMLTranslator()


class Selector:
    """A compiled CSS selector.

    :param css: what Scrapy's selectors take; with ``::text`` or ``::attr()`` at its end it matches
        the elements that have text or the attribute
    :raises cssselect.SelectorError: when it is none

    :ivar slow: whether it has parts, such as ``:has()`` or ``:nth-child()``, whose cost may grow
        with the square of the page
    """

    def __init__(self, css: str) -> None:
        parsed = parse(css)
        quick = [_is_quick(each.parsed_tree) for each in parsed]
        self.slow = not all(quick)
        try:
            self._chains = [_compiled(each.parsed_tree, each.pseudo_element) for each in parsed]
            self.select(etree.Element("html"))
        except etree.XPathError as e:
            raise SelectorError(str(e)) from None

    def select(self, root: HtmlElement) -> list[HtmlElement]:
        """What matches in a tree, in the order of the page."""
        found = [chain.select(root) for chain in self._chains]
        if len(found) == 1:
            return found[0]
        chosen = set().union(*found)
        return [element for element in root.iter("*") if element in chosen] if chosen else []


@lru_cache(256)
def selector(css: str) -> Selector:
    """The selector of a text, compiled once."""
    return Selector(css)


@dataclass(frozen=True)
class _Chain:
    """What stands between commas.

    :param parts: each finds what matches a part of it, whatever stands around
    :param relations: how each part but the first stands to the one before it
    """

    parts: list[etree.XPath]
    relations: list[Callable[[HtmlElement, Elements, Known], bool]]

    def select(self, root: HtmlElement) -> list[HtmlElement]:
        found: list[list[HtmlElement]] = []
        for part in reversed(self.parts):  # the last one matches nothing on most pages
            found.append(part(root))
            if not found[-1]:
                return []
        chosen = found.pop()
        for relation in self.relations:
            before = set(chosen)
            known: Known = {}
            chosen = [element for element in found.pop() if relation(element, before, known)]
        return chosen


def _compiled(tree: Tree, pseudo_element: PseudoElement | None) -> _Chain:
    asked = ""
    if pseudo_element:  # is it known?
        _translator.xpath_pseudo_element(_translator.xpath_element(Element()), pseudo_element)
    if isinstance(pseudo_element, FunctionalPseudoElement):
        asked = f"[@{pseudo_element.arguments[0].value}]"
    elif pseudo_element:
        asked = "[text()]"
    parts, relations = [], []
    while isinstance(tree, CombinedSelector):
        parts.append(_finder(tree.subselector, asked))
        relations.append(_RELATIONS[tree.combinator])
        tree, asked = tree.selector, ""
    parts.append(_finder(tree, asked))
    return _Chain(parts[::-1], relations[::-1])


def _finder(tree: Tree, asked: str) -> etree.XPath:
    return etree.XPath(f"descendant-or-self::{_translator.xpath(tree)}{asked}")


def _is_quick(tree: Tree) -> bool:
    """Whether each element is matched by itself, without a look at those around it.

    :raises cssselect.SelectorError: for what would take long on the smallest pages
    """
    if isinstance(tree, Element):
        return True
    if isinstance(tree, CombinedSelector):
        return _is_quick(tree.selector) and _is_quick(tree.subselector)
    within = _within(tree)
    if any(isinstance(each, CombinedSelector) for each in within):
        raise SelectorError(
            "in :has(), :is(), :not() and :where() no element may be within another"
        )
    quick = all(map(_is_quick, within))
    if isinstance(tree, Relation):
        if not quick:
            raise SelectorError("in :has() nothing may have, count or contain others")
        quick = False
    elif isinstance(tree, Pseudo):
        quick = tree.ident in _QUICK_PSEUDO_CLASSES
    elif isinstance(tree, Function):
        quick = False
    return _is_quick(tree.selector) and quick


def _within(tree: Tree) -> list[Tree]:
    """The selectors between the brackets of a pseudo-class."""
    if isinstance(tree, Negation):
        return [tree.subselector]
    if isinstance(tree, Matching | SpecificityAdjustment):
        return list(tree.selector_list)
    if isinstance(tree, Relation):
        return [each.parsed_tree for _, each in tree.arguments]
    return []


def _is_child(element: HtmlElement, parents: Elements, known: Known) -> bool:  # noqa: ARG001
    return element.getparent() in parents


def _is_within(element: HtmlElement, above: Elements, known: Known) -> bool:
    """Whether an element has one of those above it; ``known`` for others in the same tree."""
    return _is_after(element, above, known, lambda each: each.getparent())


def _is_later(element: HtmlElement, before: Elements, known: Known) -> bool:
    return _is_after(element, before, known, _previous)


def _is_next(element: HtmlElement, before: Elements, known: Known) -> bool:  # noqa: ARG001
    return _previous(element) in before


def _is_after(
    element: HtmlElement,
    wanted: Elements,
    known: Known,
    step: Callable[[HtmlElement], HtmlElement | None],
) -> bool:
    passed = []
    here = step(element)
    while here is not None and here not in wanted and here not in known:
        passed.append(here)
        here = step(here)
    answer = here is not None and (here in wanted or known[here])
    known.update(dict.fromkeys(passed, answer))
    return answer


def _previous(element: HtmlElement) -> HtmlElement | None:
    return next(element.itersiblings("*", preceding=True), None)


_RELATIONS: dict[str, Callable[[HtmlElement, Elements, Known], bool]] = {
    " ": _is_within,
    ">": _is_child,
    "+": _is_next,
    "~": _is_later,
}
