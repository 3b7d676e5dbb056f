"""Passwords and tokens in URLs are hidden wherever a config or a message is written, shown, hashed or compared."""

import dataclasses
import pickle

import pytest
from markupsafe import Markup
from support.helpers import compose

from sslcli.config.arguments import sweep_dir
from sslcli.config.composed import TrainConfig, read, restored, to_plain
from sslcli.config.identity import Content, differences, run_name
from sslcli.config.secrets import hidden, hide, shown
from sslcli.errors import UserError, escaped, one_line
from sslcli.report.render import plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://user:S3CRET@a.b/c.tar", "http://***@a.b/c.tar"),
        ("https://TOKEN@a.b:80/c", "https://***@a.b:80/c"),
        ("http://user:p@ss:w'o@a.b/x", "http://***@a.b/x"),
        ("postgresql+psycopg2://u:pw@h/db", "postgresql+psycopg2://***@h/db"),
        ("https://a.b/c.tar?token=T0KEN", "https://a.b/c.tar?token=***"),
        ("https://a.b/c?x=1&access_token=T&y=2", "https://a.b/c?x=1&access_token=***&y=2"),
        ("https://a.b/c?api_key=K#key=K", "https://a.b/c?api_key=***#key=***"),
        (
            "https://a.b/c?X-Amz-Credential=A%2F1&X-Amz-Signature=f&X-Amz-Date=2026&X-Amz-Security-Token=t&part=1",
            "https://a.b/c?X-Amz-Credential=***&X-Amz-Signature=***&X-Amz-Date=***&X-Amz-Security-Token=***&part=1",
        ),
        ("gs://b/c?X-Goog-Signature=f", "gs://b/c?X-Goog-Signature=***"),
        ("https://a.b/c?AWSAccessKeyId=A&Signature=s&Expires=1", "https://a.b/c?AWSAccessKeyId=***&Signature=***&Expires=***"),
        ("az://c/b?sv=1&se=2&sig=s%3D", "az://c/b?sv=1&se=***&sig=***"),
        ("two: http://u:p@a.b and s3://k:s@c/d.", "two: http://***@a.b and s3://***@c/d."),
        ("'dataset.path=\"http://u:p@a.b/x?token=t\"' seed=1", "'dataset.path=\"http://***@a.b/x?token=***\"' seed=1"),
        ("https://a.b/c?size=64&monkey=3", "https://a.b/c?size=64&monkey=3"),
        ("https://a.b/mail@x/c", "https://a.b/mail@x/c"),
        ("s3://bucket/{000..009}.tar", "s3://bucket/{000..009}.tar"),
        ("mean@b token=5 key=2", "mean@b token=5 key=2"),
    ],
)  # fmt: skip
def test_only_secrets_are_hidden(text, expected):
    assert hide(text) == expected == hide(expected)


def test_a_config_is_hidden_at_any_depth():
    node = {"a": ["http://u:p@h/x", 1, None], "b": {"c": ("s3://b?token=t", True)}, "d": 2.5}
    assert hidden(node) == {"a": ["http://***@h/x", 1, None], "b": {"c": ("s3://b?token=***", True)}, "d": 2.5}


def with_path(path):
    config = compose("dataset=shards")
    return dataclasses.replace(config, dataset=config.dataset.with_keys(path=path, more=path))


def test_the_hidden_form_is_written_hashed_and_compared():
    first, second = (with_path(f"https://me:{word}@a.b/x.tar?token={word}") for word in ("pw111", "pw222"))
    assert first.dataset.node["path"].endswith("token=pw111")  # what is fetched
    assert to_plain(first) == to_plain(second) and "pw111" not in str(to_plain(first)["dataset"])
    assert differences(first, second) == ([], [])
    names = {run_name(config, {}, Content("data")) for config in (first, second)}
    assert len(names) == 1
    assert run_name(with_path("https://a.b/y.tar"), {}, Content("data")) not in names
    before = {**to_plain(first), "dataset": {**to_plain(first)["dataset"], "path": first.dataset.node["path"]}}
    assert to_plain(restored(before)) == to_plain(read(to_plain(first), TrainConfig))  # written before this was done
    assert sweep_dir(["-m", "dataset.path=http://u:a@h/x"]) == sweep_dir(["-m", "dataset.path=http://u:b@h/x"])


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("003\x1b]0;owned\x07\x1b[31mEVIL.jpg", r"003\x1b]0;owned\x07\x1b[31mEVIL.jpg"),
        ("a\rb\x9b31m\x7f", r"a\rb\x9b31m\x7f"),
        ("evil\u202egpj.exe\u2066", r"evil\u202egpj.exe\u2066"),
        ("\udcff.png", r"\udcff.png"),
        ("Ångström – 10 µm, 日本 ± 0.36\u00a0%", "Ångström – 10 µm, 日本 ± 0.36\u00a0%"),
        ("two\tcolumns\nand lines", "two\tcolumns\nand lines"),
    ],
)
def test_names_from_outside_cannot_drive_a_terminal(raw, kept):
    assert escaped(raw) == str(UserError(raw)) == shown(raw) == kept
    assert one_line(raw) == kept.replace("\t", r"\t").replace("\n", r"\n")


def test_a_page_shows_no_secrets_and_no_control_characters():
    assert plain("http://u:p@a.b/<x>\x1b") == r"http://***@a.b/<x>\x1b"  # and then it is escaped for HTML
    assert plain(Markup("<b>http://u:p@a.b</b>")) == "<b>http://u:p@a.b</b>" and plain(3) == 3


def test_an_error_can_be_sent_to_another_process():
    class_, text = type(error := pickle.loads(pickle.dumps(UserError("x\x1b")))), str(error)
    assert (class_, text) == (UserError, r"x\x1b")
