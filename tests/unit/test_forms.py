"""A form is sent as a browser would send it."""

from __future__ import annotations

import email
import email.policy
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import pytest
from scrapy.http import HtmlResponse

from scrapy_captcha.forms import MAX_CHARACTERS, MAX_CONTROLS, Submission, fill, post

if TYPE_CHECKING:
    from lxml.html import FormElement

URL = "http://shop.example/list/page?n=1"


def sent(body: str, data: dict[str, str] | None = None, *, encoding: str = "utf-8") -> Submission:
    response = HtmlResponse(URL, body=body.encode(encoding), encoding=encoding)
    form: FormElement = response.css("form")[0].root
    return fill(response, form, {"code": "ab12"} if data is None else data)


def pairs(submission: Submission, encoding: str = "utf-8") -> list[tuple[str, str]]:
    text = (
        submission.body.decode() if submission.method == "POST" else urlsplit(submission.url).query
    )
    return parse_qsl(text, keep_blank_values=True, encoding=encoding)


def test_a_form_keeps_its_own_values_but_those_that_are_given() -> None:
    submission = sent(
        "<form method=post action=/go><input type=hidden name=token value='a&b'>"
        "<input name=code value=old><input name=empty><input name=off disabled value=x>"
        "<fieldset disabled><input name=off2 value=x><fieldset><select name=off3><option>x</select>"
        "</fieldset><textarea name=off4>x</textarea></fieldset>"
        "<input type=button name=no2 value=x>"
        "<input type=checkbox name=yes checked><input type=checkbox name=no>"
        "<select name=kind><option value=a>A<option value=b selected>B</select>"
        "<textarea name=text>two lines</textarea></form>"
    )
    assert (submission.url, submission.method) == ("http://shop.example/go", "POST")
    assert submission.headers == {"Content-Type": "application/x-www-form-urlencoded"}
    assert dict(pairs(submission)) == {
        "token": "a&b",
        "code": "ab12",
        "empty": "",
        "yes": "on",
        "kind": "b",
        "text": "two lines",
    }


def test_a_get_form_replaces_the_query_of_its_action() -> None:
    submission = sent("<form action='/go?old=1'><input name=code><input name=t value=2></form>")
    assert submission == Submission("http://shop.example/go?t=2&code=ab12", "GET", {}, b"")


@pytest.mark.parametrize(
    ("form", "url"),
    [
        ("<form method=post>", URL),
        ("<form method=post action=''>", URL),
        ("<form method=post action='go'>", "http://shop.example/list/go"),
        ("<form method=post action='?x=1'>", "http://shop.example/list/page?x=1"),
        ("<base href='/deep/'><form method=post action=go>", "http://shop.example/deep/go"),
        ("<base href='/deep/'><form method=post>", URL),
        ("<form method=POST action='http://shop.example/g'>", "http://shop.example/g"),
        ("<form method=post action=' /go '>", "http://shop.example/go"),
    ],
)
def test_where_a_form_is_sent(form: str, url: str) -> None:
    assert sent(f"{form}<input name=code></form>").url == url


def test_the_first_button_that_submits_is_pressed() -> None:
    submission = sent(
        "<form method=post action=/go><input name=code><button type=button name=a value=1></button>"
        "<input type=reset name=b><button name=c value=3></button>"
        "<input type=submit name=d value=4></form>"
    )
    assert pairs(submission) == [("code", "ab12"), ("c", "3")]


def test_a_disabled_button_is_not_pressed() -> None:
    submission = sent(
        "<form method=post action=/go><input name=code><button name=a value=1 disabled></button>"
        "<button name=b value=2></button></form>"
    )
    assert pairs(submission) == [("code", "ab12"), ("b", "2")]


@pytest.mark.parametrize(
    ("button", "url", "method"),
    [
        ("<button formaction=/other>", "http://shop.example/other", "POST"),
        ("<button formaction=other>", "http://shop.example/list/other", "POST"),
        ("<button formmethod=get>", "http://shop.example/go?code=ab12", "GET"),
    ],
)
def test_a_button_may_say_where_and_how(button: str, url: str, method: str) -> None:
    submission = sent(f"<form method=post action=/go><input name=code>{button}</button></form>")
    assert (submission.url, submission.method) == (url, method)


def test_a_button_s_address_is_relative_to_the_base() -> None:
    submission = sent(
        "<base href='/deep/'><form method=post action=go><input name=code>"
        "<button formaction=other></button></form>"
    )
    assert submission.url == "http://shop.example/deep/other"


def parts(submission: Submission) -> list[tuple[str, str]]:
    head = f"Content-Type: {submission.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + submission.body, policy=email.policy.HTTP)
    assert message.is_multipart()
    return [
        (
            str(part.get_param("name", header="Content-Disposition")),
            (part.get_payload(decode=True) or b"").decode(),
        )
        for part in message.iter_parts()
    ]


@pytest.mark.parametrize(
    "form",
    [
        "<form method=post action=/go enctype='multipart/form-data'>{}<button></button></form>",
        "<form method=post action=/go enctype='Multipart/Form-Data'>{}</form>",
        "<form method=post action=/go>{}<button formenctype='multipart/form-data'></button></form>",
    ],
)
def test_a_multipart_form(form: str) -> None:
    fields = "<input name=code><input name='a\"b' value='x=1&y'><input name=name value='Zoë'>"
    submission = sent(form.format(fields))
    assert (submission.url, submission.method) == ("http://shop.example/go", "POST")
    assert dict(parts(submission)) == {"code": "ab12", "a%22b": "x=1&y", "name": "Zoë"}


def test_a_value_cannot_break_out_of_its_part() -> None:
    evil = 'x"\r\n\r\n--boundary--\r\nContent-Disposition: form-data; name="admin"'
    form = "<form method=post enctype='multipart/form-data'><input name=code></form>"
    assert parts(sent(form, {"code": evil})) == [("code", evil)]


def test_text_is_sent_in_the_page_s_encoding() -> None:
    form = "<form method=post><input type=hidden name=q value='验证'><input name=code></form>"
    submission = sent(form, encoding="gbk")
    assert b"q=%D1%E9%D6%A4" in submission.body
    assert dict(pairs(submission, "gbk")) == {"q": "验证", "code": "ab12"}


def test_a_get_form_is_sent_in_the_page_s_encoding_too() -> None:
    form = "<form action=/go><input type=hidden name=q value='验证'><input name=code></form>"
    assert "q=%D1%E9%D6%A4" in sent(form, encoding="gbk").url


def test_accept_charset_outranks_the_page_s_encoding() -> None:
    form = "<form method=post accept-charset='utf-8'><input name=code value='验'></form>"
    assert sent(form, {}, encoding="gbk").body == b"code=%E9%AA%8C"


@pytest.mark.parametrize("charset", ["nonsense", "  ", ""])
def test_an_unknown_accept_charset_is_no_obstacle(charset: str) -> None:
    form = f"<form method=post accept-charset='{charset}'><input name=code></form>"
    assert sent(form).body == b"code=ab12"


def test_what_the_encoding_lacks_is_sent_as_browsers_send_it() -> None:
    form = "<form method=post><input name=code></form>"
    submission = sent(form, {"code": "ab€"}, encoding="iso-8859-1")
    assert submission.body == b"code=ab%26%238364%3B"


def test_fields_that_the_form_lacks_are_added() -> None:
    form = "<form method=post><input name=code></form>"
    assert dict(pairs(sent(form, {"code": "x", "js": "1"}))) == {"code": "x", "js": "1"}


def test_a_form_in_a_table_keeps_its_fields() -> None:
    submission = sent(
        "<table><form method=post action=/go><tr><td><input type=hidden name=t value=1></td>"
        "<td><input name=code></td></tr></form></table>"
    )
    assert pairs(submission) == [("t", "1"), ("code", "ab12")]


@pytest.mark.parametrize("form", ["<form method=dialog>", "<form method=post enctype=text/plain>"])
def test_what_cannot_be_sent_is_an_error_or_sent_as_usual(form: str) -> None:
    try:
        submission = sent(f"{form}<input name=code></form>")
    except (ValueError, NotImplementedError):
        return
    assert submission.body == b"code=ab12"


def test_a_submission_without_a_form() -> None:
    submission = post("http://shop.example/check", {"code": "ab 12", "user": "Zoë"})
    assert submission.method == "POST"
    assert submission.body == b"code=ab+12&user=Zo%C3%AB"


@pytest.mark.parametrize(
    "fields",
    [
        "<input name=a value=1>" * (MAX_CONTROLS + 1),
        f"<select name=a>{'<option>1' * (MAX_CONTROLS + 1)}</select>",
        f"{'<select name=a>' * 20}{'<option>1' * 200}",
        f"{'<select name=a>' * 21}<option>1",
        f"<input name=a value='{'x' * (MAX_CHARACTERS + 1)}'>",
        f"<textarea name=a>{'x' * (MAX_CHARACTERS + 1)}</textarea>",
        f"<input name='{'x' * (MAX_CHARACTERS + 1)}' value=1>",
    ],
    ids=["fields", "options", "options of all", "selects", "value", "text", "name"],
)
def test_a_form_of_a_size_that_no_form_has_is_not_sent(fields: str) -> None:
    with pytest.raises(ValueError, match="more than"):
        sent(f"<form method=post><input name=code>{fields}</form>")


def test_a_select_without_an_end_is_no_obstacle() -> None:
    select = "<select name={}><option value=1>A<option value=2 selected>B"
    fields = "".join(map(select.format, "ab")) + "</select></select><input name=code>"
    assert ("b", "2") in pairs(sent(f"<form method=post>{fields}</form>"))


@pytest.mark.parametrize(
    "charset", ["punycode", "idna", "hex", "undefined", "utf-7", "utf-16", "?"]
)
def test_an_encoding_that_browsers_do_not_send_is_utf_8(charset: str) -> None:
    submission = sent(
        f"<form method=post accept-charset='{charset}'><input name=code><input name=a value=é>"
        "</form>"
    )
    assert ("a", "é") in pairs(submission)
