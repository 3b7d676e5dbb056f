"""Files of a run that are cut short, damaged or somebody else's: what they hold is never lost in silence."""

import json

import pytest

from sslcli.errors import UserError
from sslcli.run_dir import normalisation
from sslcli.run_dir.eval_json import add_metrics, read_evaluations, settled_size
from sslcli.run_dir.layout import read_config
from sslcli.run_dir.metrics_jsonl import JsonLines, read_lines
from sslcli.run_dir.records import measured_at, read_run
from sslcli.run_dir.result_json import finished, read_result

METRIC = {"value": 0.5, "protocol": "p", "unit": "share", "higher_is_better": True, "raw_input": 0.4, "samples": 60}
RESULT = {"metrics": {"knn_top1": METRIC}, "headline": "knn_top1", "steps": 4, "seconds": 1.5}


def nested(levels):
    return b'{"metrics": ' + b'{"a": ' * levels + b"1" + b"}" * (levels + 1)


GARBAGE = {  # of any file
    "empty": b"",
    "cut short": json.dumps(RESULT).encode()[:-9],
    "binary": bytes(range(256)),
    "invalid UTF-8": b'{"metrics": {"\xff\xfe": 1}}',
    "a list": b"[1, 2]",
    "a number": b"7",
    "nested": nested(500),
    "deeply nested": nested(100_000),
    "a key twice": b'{"metrics": {}, "metrics": {}}',
    "many digits": b'{"metrics": {"x": {"value": 1' + b"0" * 400 + b"}}}",
    "too many digits": b'{"metrics": {"x": {"value": 1' + b"0" * 5000 + b"}}}",
}
TYPES = {
    "a list of metrics": {"metrics": [METRIC]},
    "metrics that are text": {"metrics": "all"},
    "a protocol that is a list": {"metrics": {"knn_top1": {**METRIC, "protocol": ["p"]}}},
    "an error that is text": {"metrics": {"knn_top1": {**METRIC, "standard_error": "small"}}},
    "a direction that is text": {"metrics": {"knn_top1": {**METRIC, "higher_is_better": "no"}}},
    "samples that are text": {"metrics": {"knn_top1": {**METRIC, "samples": "60"}}},
    "an error below 0": {"metrics": {"knn_top1": {**METRIC, "standard_error": -0.1}}},
    "a step that is a fraction": {"metrics": {"step-00000004": {"knn_top1": {**METRIC, "step": 1.5}}}},
}
BROKEN = {**GARBAGE, **{name: json.dumps(found).encode() for name, found in TYPES.items()}}


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    add_metrics(tmp_path, {"linear_top1": METRIC}, step=4, dataset=None)
    return tmp_path


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_eval_json_costs_a_warning_and_is_kept_aside(run_dir, capsys, name):
    (run_dir / "eval.json").write_bytes(BROKEN[name])
    assert settled_size(run_dir, None) == 60 and read_run(run_dir).evaluations == {}
    warned = capsys.readouterr().err
    assert warned.count("eval.json is damaged and left out") == 2 and "Traceback" not in warned
    add_metrics(run_dir, {"linear_top1": METRIC}, step=4, dataset=None)
    assert "It is eval.damaged-1.json now" in capsys.readouterr().err
    assert (run_dir / "eval.damaged-1.json").read_bytes() == BROKEN[name]
    assert read_evaluations(run_dir)["metrics"]["linear_top1"]["value"] == 0.5
    (run_dir / "eval.json").write_bytes(b"again")
    add_metrics(run_dir, {"linear_top1": METRIC}, step=4, dataset=None)
    assert (run_dir / "eval.damaged-2.json").read_bytes() == b"again"


@pytest.mark.parametrize(
    "name", [*sorted(BROKEN.keys() - {"nested"}), "a headline that is a list", "steps that are text"]
)
def test_a_broken_result_json_costs_a_warning(run_dir, capsys, name):
    more = {"a headline that is a list": {"headline": []}, "steps that are text": {"steps": "4"}}
    content = BROKEN.get(name) or json.dumps({**RESULT, **more.get(name, {})}).encode()
    (run_dir / "result.json").write_bytes(b"" if name == "empty" else content)
    assert read_result(run_dir) is None and finished(run_dir, 4) is None
    assert [name for name, *_ in measured_at(run_dir, 4, "student")] == ["linear_top1"]
    assert "result.json is damaged and left out" in capsys.readouterr().err


def test_numbers_that_json_does_not_have_are_left_out(run_dir):
    text = json.dumps(RESULT).replace(
        '"value": 0.5', '"value": 0.5, "standard_error": NaN, "raw": 1e999, "huge": -1e300'
    )
    (run_dir / "result.json").write_text(text)
    reading = read_run(run_dir).metrics["knn_top1"]
    assert reading.value == 0.5 and reading.standard_error is None and reading.baselines == {"raw_input": 0.4}


def test_a_mark_of_the_byte_order_changes_nothing(run_dir):
    (run_dir / "result.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(RESULT).encode())
    assert read_result(run_dir)["metrics"]["knn_top1"]["value"] == 0.5


STEPS = (b'"4"', b"1e3", b"-1", b"99999999999999999", b"null", b"true")
LINES = [*GARBAGE.values(), *(b'{"step": ' + step + b"}" for step in STEPS), b'{"loss": 1}', b"\x00" * 100]


def test_no_line_of_metrics_blocks_a_resume(tmp_path):
    """Each bad line between two good ones; a kill may cut the last line short, and of that nothing is said."""
    bad = [line for line in LINES if line]
    content = b'{"step": 1, "loss": NaN}\n' + b'\n{"step": 2}\n'.join(bad) + b'\n{"step": 3}\n{"step": 4, "lo'
    (tmp_path / "metrics.jsonl").write_bytes(content)
    steps = [1] + [2] * (len(bad) - 1) + [3]
    assert [line["step"] for line in read_lines(tmp_path)] == steps
    assert JsonLines(tmp_path / "metrics.jsonl").cut_back(3) == len(b"\n".join(bad).splitlines())
    assert (tmp_path / "metrics.jsonl").read_bytes().startswith(b'{"step": 1, "loss": NaN}\n{"step": 2}\n')
    assert [line["step"] for line in read_lines(tmp_path)] == steps
    assert JsonLines(tmp_path / "metrics.jsonl").cut_back(2) == 0
    assert [line["step"] for line in read_lines(tmp_path)] == steps[:-1]


@pytest.mark.parametrize("content", [
    b"\xff\xfe", b"a: [", b"- 1\n- 2\n", b"", b"a: 1\na: 2\n", b"a: ${", b"a: " + b"[" * 2000, bytes(range(32)),
    b"a: &x [1]\n? [1, 2]\n: 3\n", b"a: !!python/object:os.system x\n", b"7",
    b"a: &a [1, 1]\nb: [*a, *a]\n",
])  # fmt: skip
def test_a_config_that_is_none_is_refused_in_a_line(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match="config.yaml") as refused:
        read_config(tmp_path)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("change", [
    {"image_mean": ["a"]}, {"image_mean": 0.5}, {"image_std": [None]}, {"source": 3}, {"rescale_factor": "1"},
    {"range": [1.0]}, {"range": ["a", "b"], "range_source": "s"},
])  # fmt: skip
def test_numbers_of_another_type_are_no_normalisation(tmp_path, change):
    content = normalisation.Normalisation((0.5,), (0.2,), "measured").content()
    changed = json.dumps({**json.loads(content), **change}, indent=2) + "\n"
    with pytest.raises(UserError, match="cannot be read"):
        normalisation.parse(changed.encode())
