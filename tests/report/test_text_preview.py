"""The page of texts and their views, read back from the file."""

import re
from html import unescape

import pytest
from support.helpers import compose

from sslcli.commands.train import run
from sslcli.errors import UserError

TEXTS = ["a red <b>dress</b> & a blue shirt that fits very well", "bad fabric , returned"] * 10


@pytest.fixture
def preview(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(f"{text} {i}" for i, text in enumerate(TEXTS)))

    def write(*overrides, name="views.html"):
        data = ("dataset=text", f"dataset.path={tmp_path / 'texts.txt'}", "encoder=text_transformer", "device=cpu")
        small = ("encoder.hidden_dim=16", "encoder.depth=1", "train.batch_size=8", "train.steps=1")
        run(compose(*data, *small, *overrides, f"preview={tmp_path / name}"), tmp_path / "run")
        assert not (tmp_path / "run").exists()
        page = (tmp_path / name).read_text()
        rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)[1:]]
        return re.findall(r"<th>(.*?)</th>", page), rows

    return write


def words(cell):
    return unescape(re.sub("<[^>]*>", "", cell)).split()


def test_whole_texts_are_spelled_and_nothing_in_them_is_markup(preview):
    names, rows = preview("views=dropout", "objective=infonce")
    assert names == ["text", "view 1", "view 2"] and len(rows) == 8
    for text, one, two in rows:
        assert one == two == text and "<mark>" not in text
        assert words(text)[0] == "[CLS]" and words(text)[-1] == "[SEP]"  # and no padding
        assert '<span class="special">[CLS]</span>' in text and "<b>" not in text
    assert any("&lt;" in row[0] and "&amp;" in row[0] for row in rows)


def test_what_is_hidden_is_marked_where_it_stands(preview):
    _, rows = preview("views=columns", "objective=masked_tokens", "objective.mask_ratio=0.3")
    for text, view in rows:
        marked = re.findall(r"<mark>(.*?)</mark>", view)
        assert len(marked) == max(1, round(0.3 * (len(words(text)) - 2)))
        assert words(view) == words(text)


def test_masks_of_a_view_are_marked(preview):
    _, rows = preview("views=span_mask", "objective=infonce")
    assert all("<mark>[MASK]</mark>" in row[1] and len(words(row[1])) == len(words(row[0])) for row in rows)


def test_histories_are_spelled_as_the_items_of_the_table(tmp_path):
    (tmp_path / "table.csv").write_text(
        "\n".join(["user,item,time", *(f"{u},<film {k}>,{k}" for u in range(9) for k in range(6 + u % 3))])
    )
    options = (f"dataset.path={tmp_path / 'table.csv'}", "device=cpu", "train.batch_size=8", "train.steps=1")
    run(compose("experiment=cl4srec", *options, f"preview={tmp_path / 'views.html'}"), tmp_path / "run")
    rows = re.findall(r"<tr>(.*?)</tr>", (tmp_path / "views.html").read_text())[1:]
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in rows]
    assert {len(row) for row in cells} == {4} and "<mark>[hidden]</mark>" in "".join(rows)
    for whole, first, *_ in cells:
        count = whole.count("&lt;film")
        assert count in (4, 5, 6) and whole == first == " ".join(f"&lt;film {k}&gt;" for k in range(count))


def test_another_kind_of_file_is_refused(preview):
    with pytest.raises(UserError, match="texts are shown on a page. Name it views.html"):
        preview("views=dropout", name="views.png")
