"""The pages: read by an HTML parser, checked against the files, the data and other libraries' numbers."""

import base64
import io
import json
import math
import re
import shutil
import sys
import types
from dataclasses import replace

import html5lib
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from support.helpers import compose, percent
from support.modalities import vector_dataset
from torch.nn import functional as F

import sslcli
from sslcli.commands.report import run as report
from sslcli.commands.restored import visuals_of
from sslcli.commands.train import run
from sslcli.components import restore_components
from sslcli.config.instantiate import allow
from sslcli.data.base import Dataset
from sslcli.data.pictures.encode import address
from sslcli.errors import UserError
from sslcli.evaluation.measure import dry_loss
from sslcli.evaluation.pca import principal_axes
from sslcli.report.charts import thinned
from sslcli.report.collect import MEASURED
from sslcli.report.maps import pca, singular_values
from sslcli.report.patches import between_0_and_1, components, token_map
from sslcli.report.pictures import enlarged
from sslcli.run_dir.checkpoint import open_run
from sslcli.run_dir.readings import readings
from sslcli.training.device import choose
from sslcli.types import Encoded, View

INPUTS = ("raw_input", "centred", "pca64")
SVG, HTML = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xhtml}"
DATA = (
    "dataset=synthetic", "dataset.num_samples=300", "dataset.size=16", "train.batch_size=32", "train.precision=fp32",
    "device=cpu", "device.threads=1", "log.every=1", "train.steps=6", "encoder.view_share=1.0",
)  # fmt: skip


@pytest.fixture(scope="module")
def infonce(tmp_path_factory):
    folder = tmp_path_factory.mktemp("infonce") / "run"
    run(compose(*DATA, "log.quality=basic"), folder)
    return folder


@pytest.fixture(scope="module")
def simmim(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simmim") / "run"
    run(compose(*DATA, "objective=simmim", "train.steps=30", "log.every=5"), folder)
    return folder


def parsed(path):
    """The document of a page; anything that an HTML parser objects to is an error."""
    return html5lib.HTMLParser(strict=True).parse(path.read_text())


def words(element):
    return " ".join("".join(element.itertext()).split())


def picture(src):
    kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", src).groups()
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format.lower() == kind
    return np.asarray(image.convert("RGB"))


def section(document, name):
    return next(e for e in document.iter(f"{HTML}section") if e.get("id") == name)


def pictures(element):
    return [picture(image.get("src")) for image in element.iter(f"{HTML}img")]


def rewritten(folder, **changes):
    return report(replace(compose("device.threads=1", name="report"), **{"run": str(folder), **changes}))


def test_a_page_is_one_file_that_refers_to_nothing_outside(infonce, simmim):
    for folder in (infonce, simmim):
        page = folder / "report.html"
        assert page.stat().st_size < 3e6
        document = parsed(page)
        ids = [e.get("id") for e in document.iter() if e.get("id")]
        assert len(ids) == len(set(ids))
        text = page.read_text()
        for name in re.findall(r"url\(([^)]*)\)", text):
            assert name.strip("\"'").removeprefix("#") in ids
        for element in document.iter():
            for key, value in element.attrib.items():
                if key.endswith(("href", "src")):
                    assert value.startswith("data:") or value.removeprefix("#") in ids, (element.tag, key, value[:80])
                assert key not in ("srcset", "action", "poster")
        assert not list(document.iter(f"{HTML}script")) and "@import" not in text
        assert "default-src 'none'" in text


def test_every_picture_decodes_and_has_words(infonce, simmim):
    for folder in (infonce, simmim):
        document = parsed(folder / "report.html")
        images = list(document.iter(f"{HTML}img"))
        maps = list(section(document, "patches").iter(f"{HTML}img"))
        assert len(images) > 50
        for image in images:
            shape = picture(image.get("src")).shape
            assert image.get("alt") and (shape == (16, 16, 3) or image in maps)


def test_the_numbers_are_those_of_the_result(infonce):
    result = json.loads((infonce / "result.json").read_text())
    document = parsed(infonce / "report.html")
    shown = words(section(document, "result"))
    rows = {words(row[0]): row for row in document.iter(f"{HTML}tr") if row[0].tag == f"{HTML}td"}
    for name, metric in result["metrics"].items():
        cells = rows[name]
        if metric["unit"] != "share":
            assert re.fullmatch(r"[-\d.]+ ± [\d.]+", words(cells[1]))
            assert float(words(cells[1]).partition(" ")[0]) == pytest.approx(metric["value"], rel=0.05)
            continue
        error = (metric["value"] * (1 - metric["value"]) / 60) ** 0.5  # binomial, of 60 queries
        assert words(cells[1]) == f"{percent(metric['value'], error)} %"
        own = ("value", "std", "standard_error", "gain_standard_error")
        baselines = {k: v for k, v in metric.items() if isinstance(v, float) and k not in own}
        assert len(baselines) == 4
        for control, value in baselines.items():
            assert f"{control} {percent(value, error).partition(' ')[0]} %" in words(cells[2])
        assert words(cells[3]).endswith(f"; {metric['protocol']}")
    top = result["metrics"]["knn_top1"]
    gain = percent(top["value"] - max(top[c] for c in baselines), top["gain_standard_error"], sign="+")
    assert f"{gain.replace('-', '−')} points against the best baseline" in shown


def test_curves_go_through_the_logged_values(infonce, simmim):
    """The path's vertices, up to the axes' scale and shift, are the lines of metrics.jsonl."""
    for folder in (infonce, simmim):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        drawn = {
            svg.get("aria-label").partition(" over")[0]: svg for svg in parsed(folder / "report.html").iter(f"{SVG}svg")
        }
        for name, title in (("loss", "loss"), ("lr", "learning rate"), ("data_wait", "time spent waiting for data")):
            paths = [path.get("d") for path in drawn[title].iter(f"{SVG}path") if path.get("clip-path")]
            numbers = [np.array(re.findall(r"[ML] (\S+) (\S+)", path), float) for path in paths]
            points = next(found for found in numbers if len(found) == len(lines))
            for axis, key in ((0, "step"), (1, name)):
                truth = np.array([line[key] for line in lines])
                fit = np.polyfit(truth, points[:, axis], 1)
                assert np.abs(np.polyval(fit, truth) - points[:, axis]).max() < 0.01
                assert fit[0] > 0 if axis == 0 else fit[0] < 0


def test_an_objectives_only_term_is_drawn_once(simmim):
    titles = [words(e) for e in section(parsed(simmim / "report.html"), "curves").iter(f"{HTML}h3")]
    assert titles == ["loss", "learning rate", "samples per second", "time spent waiting for data"]


def test_a_long_curve_keeps_its_spike():
    y = [0.0] * 100_000
    y[54_321] = 7.0
    kept_x, kept_y = thinned(range(100_000), y, 600)
    assert len(kept_x) <= 602 and max(kept_y) == 7.0 and kept_x[kept_y.index(7.0)] == 54_321
    assert kept_x[0] == 0 and kept_x[-1] == 99_999 and kept_x == sorted(kept_x)
    y[10] = math.nan
    assert max(value for value in thinned(range(100_000), y, 600)[1] if value == value) == 7.0


def test_views_are_of_the_samples_of_step_0(infonce):
    from sslcli.data.sampler import permuted
    from sslcli.data.synthetic import synthetic

    dataset = synthetic(num_samples=300, size=16)
    order = permuted(np.arange(8), len(dataset), 0, "order", 0)
    expected = dataset.fetch(torch.from_numpy(order))["image"].permute(0, 2, 3, 1).numpy()
    shown = pictures(section(parsed(infonce / "report.html"), "views"))
    assert len(shown) == 24  # image, view 1, view 2
    for row in range(8):
        assert np.abs(shown[3 * row].astype(int) - expected[row].astype(int)).max() <= 1
        assert np.abs(shown[3 * row + 1].astype(int) - expected[row].astype(int)).mean() > 1


def trained_parts(folder):
    _, state = open_run(str(folder))
    return state["config"], restore_components(state, torch.device("cpu"))


def visuals(config, parts, *, seconds=150.0):
    """What a report shows, made in a tenth of these seconds."""
    return visuals_of(config, parts, choose("cpu", "fp32"), seconds=seconds)


def test_a_reconstruction_is_the_decoders_pixels_where_hidden(simmim):
    """Slowly: each token's linear prediction, put into its square by a loop, in the dataset's colours."""
    config, parts = trained_parts(simmim)
    found = visuals(config, parts)
    held_out, field = parts.dataset.held_out, parts.dataset.spec["image"]
    assert found.masked.count == min(MEASURED, len(held_out))
    from sslcli.data.selection import balanced
    from sslcli.features import Features
    from sslcli.randomness import Randomness

    index = balanced(held_out.labels, MEASURED)
    columns = held_out.fetch(index)
    randomness = Randomness(0, 0, np.arange(len(index)), torch.device("cpu"))
    view = parts.views(columns, randomness)[0]
    mask = parts.objective.draw(randomness, 0)
    with torch.no_grad():
        encoded = parts.objective.encode(Features(parts.encoder, [view], randomness, columns), 0, mask)
    weight, bias = parts.objective.decoder.weight, parts.objective.decoder.bias
    size, stride = view.x.shape[-1], parts.encoder.stride
    cell = size // mask.shape[1]
    few = torch.linspace(0, len(index) - 1, 8).long()
    assert list(found.masked.pictures) == ["input", "masked", "reconstruction", "target"]
    hidden_pixels = 0
    for place, sample in enumerate(few.tolist()):
        for top in range(0, size, stride):
            for left in range(0, size, stride):
                token = encoded.tokens[sample, (top // stride) * math.ceil(size / stride) + left // stride]
                patch = (weight @ token + bias).view(3, stride, stride)
                for y in range(top, min(top + stride, size)):
                    for x in range(left, min(left + stride, size)):
                        hidden = bool(mask[sample, y // cell, x // cell])
                        source = patch[:, y - top, x - left] if hidden else view.target[sample, :, y, x]
                        colour = (source * torch.tensor(field.std) + torch.tensor(field.mean)).clamp(0, 1)
                        shown = found.masked.pictures["reconstruction"][place, :, y, x]
                        assert torch.allclose(shown, colour, atol=1e-4), (place, y, x, hidden)
                        gray = bool((found.masked.pictures["masked"][place, :, y, x] == 0.5).all())
                        assert gray == hidden
                        hidden_pixels += hidden
    assert hidden_pixels > 500
    truth = (view.target[few] * torch.tensor(field.std)[:, None, None] + torch.tensor(field.mean)[:, None, None]).clamp(
        0, 1
    )
    torch.testing.assert_close(found.masked.pictures["target"], truth)
    loss = dry_loss(parts, columns, choose("cpu", "fp32"), seed=0)  # l1, of the same samples and masks
    assert found.masked.error == pytest.approx(loss, rel=1e-4)
    shown = words(section(parsed(simmim / "report.html"), "reconstructions"))
    assert f"{found.masked.error:.4f}; predicting the mean everywhere gives {found.masked.blank:.4f}" in shown
    page = pictures(section(parsed(simmim / "report.html"), "reconstructions"))
    for place in range(8):
        for k, name in enumerate(found.masked.pictures):
            pixels = found.masked.pictures[name][place].permute(1, 2, 0).numpy() * 255
            assert np.abs(page[4 * place + k] - pixels).max() <= 1


@pytest.mark.parametrize("target", ["patch", "window"])
def test_a_normalised_target_is_not_dressed_up_as_pixels(tmp_path, target):
    run(compose(*DATA, "objective=simmim", f"objective.target={target}", "probe=none", "train.steps=2"), tmp_path / "r")
    text = words(section(parsed(tmp_path / "r" / "report.html"), "reconstructions"))
    assert "would show the answer, not the prediction" in text and "local standard deviations" in text
    config, parts = trained_parts(tmp_path / "r")
    found = visuals(config, parts).masked
    assert list(found.pictures) == ["input", "masked", "prediction", "target"]
    visible = (found.pictures["masked"] != 0.5).any(1, keepdim=True).expand_as(found.pictures["target"])
    assert (found.pictures["prediction"][visible] == 0.5).all() and (found.pictures["target"][visible] == 0.5).all()
    assert found.pictures["target"].std() > 0.05


@pytest.mark.parametrize("shape, count", [((4, 6, 5, 7), 3), ((2, 40, 3, 3), 3), ((3, 2, 4, 4), 2), ((2, 5, 2, 3), 3)])
def test_colours_of_patches_are_another_librarys_principal_components(shape, count):
    """Fitted on the tokens of all pictures together; more tokens than columns, and fewer."""
    maps = (
        torch.randn(shape, generator=torch.Generator().manual_seed(1)) * torch.logspace(1, -1, shape[1])[:, None, None]
    )
    found, share = components(maps, principal_axes)
    rows = maps.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    other = PCA(count, svd_solver="full").fit(rows)
    expected = other.transform(rows).reshape(shape[0], *shape[2:], count)
    for k in range(count):
        ours, theirs = found[:, k].numpy(), expected[..., k]
        np.testing.assert_allclose(ours * np.sign((ours * theirs).sum()), theirs, atol=1e-3)
    assert found.shape[1] == 3 and not found[:, count:].any()
    assert share == pytest.approx(other.explained_variance_ratio_.sum(), abs=1e-4)
    colours = between_0_and_1(found)
    for k in range(count):
        assert (colours[:, k].min(), colours[:, k].max()) == (0, 1)


class Positions(torch.nn.Module):
    """An encoder whose tokens are cells of the picture in raster order."""

    token_dim = 3

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, view):
        cells = F.avg_pool2d(view.x, self.cell)
        return Encoded(cells.flatten(2).transpose(1, 2), cells.mean((2, 3)))


@pytest.mark.parametrize("size, cell, shape", [((8, 12), 4, (2, 3)), ((80, 40), 1, (32, 32)), ((8, 8), 8, None)])
def test_tokens_lie_where_their_patches_are(size, cell, shape):
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    found = token_map(Positions(cell), View(x, "image"), choose("cpu", "fp32"))
    if shape is None:  # one token has no place
        assert found is None
        return
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(x, shape))


def test_patches_stand_beside_their_pictures(infonce):
    document = parsed(infonce / "report.html")
    shown = pictures(section(document, "patches"))
    found = visuals(*trained_parts(infonce), seconds=10).patches
    assert list(found.pictures) == ["picture", "trained", "random init"] and len(shown) == 24
    for place in range(8):
        for k, name in enumerate(found.pictures):
            expected = found.pictures[name][place].permute(1, 2, 0).numpy() * 255
            assert np.abs(shown[3 * place + k] - expected).max() <= 1
    side = found.pictures["trained"].shape[-1]
    said = f"picture: 16 x 16; trained, random init: {side} x {side} pixels, enlarged"
    assert 2 <= side < 16 and said in words(section(document, "patches"))
    assert "16 x 16 pixels, enlarged" in words(section(document, "views"))
    assert "16 x 16 pixels, enlarged" in words(section(document, "neighbours"))


def test_only_enlarged_pictures_say_their_size():
    small, local, large = (torch.zeros(1, 1, side, side) for side in (64, 20, 65))
    assert enlarged({"image": small, "view 1": small}) == "64 x 64 pixels, enlarged"
    assert enlarged({"image": large}) == ""
    assert enlarged({"image": large, "view 1": small, "view 2": local, "view 3": local}) == (
        "view 1: 64 x 64; view 2, view 3: 20 x 20 pixels, enlarged"
    )
    assert enlarged({"image": torch.zeros(1, 3, 20, 30)}) == "30 x 20 pixels, enlarged"


@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_keep_their_pixels_and_large_ones_shrink(channels):
    small = torch.randint(0, 256, (channels, 64, 20), generator=torch.Generator().manual_seed(0))
    assert np.array_equal(picture(address(small / 255)), small.expand(3, -1, -1).permute(1, 2, 0).numpy())
    large = torch.linspace(0, 1, 300)[None, :, None].expand(channels, 300, 150)
    shown = picture(address(large))
    assert shown.shape == (112, 56, 3) and len(address(large)) < 4000
    assert np.abs(shown[:, 20, 0] / 255 - np.linspace(0, 1, 112)).max() < 0.03


def test_looking_leaves_no_trace(simmim):
    config, parts = trained_parts(simmim)
    parts.encoder.train()
    before = {name: value.clone() for name, value in parts.encoder.state_dict().items()}
    visuals(config, parts, seconds=10)
    assert parts.encoder.training
    assert all(torch.equal(value, before[name]) for name, value in parts.encoder.state_dict().items())


def test_neighbours_are_those_of_another_library(infonce):
    config, parts = trained_parts(infonce)
    pictures = visuals(config, parts, seconds=1e7).neighbours
    found = pictures.found
    encoder, dataset = sslcli.load(infonce), parts.dataset
    assert found.bank == len(dataset)
    everything = dataset.fetch(torch.arange(len(dataset)))["image"]
    with torch.no_grad():
        bank = encoder(everything).numpy()
        queries = encoder((pictures.queries * 255).round().byte()).numpy()
    distance, nearest = (
        NearestNeighbors(n_neighbors=8, metric="cosine", algorithm="brute").fit(bank).kneighbors(queries)
    )
    np.testing.assert_allclose(found.similarity.numpy(), 1 - distance, atol=1e-4)
    expected = everything[torch.from_numpy(nearest)]
    assert (pictures.nearest * 255 - expected).abs().flatten(2).amax(2).le(1).float().mean() > 0.95  # ties may swap
    held_out = dataset.held_out
    originals = held_out.fetch(torch.arange(len(held_out)))["image"]
    for query, same in zip(pictures.queries, found.same):
        i = int((originals - query * 255).abs().flatten(1).amax(1).argmin())
        k = pictures.queries.tolist().index(query.tolist())
        assert same.tolist() == (dataset.labels[torch.from_numpy(nearest[k])] == held_out.labels[i]).tolist()
    text = words(section(parsed(infonce / "report.html"), "neighbours"))
    assert f"{int(found.same.sum())} of 64 agree" in text


@pytest.mark.parametrize("shape", [(200, 30), (40, 100)])
def test_map_and_spectrum_are_those_of_other_libraries(shape):
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.logspace(1, -2, shape[1]))
    other = PCA(2, svd_solver="full").fit(rows.numpy())
    expected, found = other.transform(rows.numpy()), pca(rows)
    for axis in range(2):
        same = np.sign(expected[0, axis]) * np.sign(found.points[0, axis].item())
        np.testing.assert_allclose(found.points[:, axis].numpy(), same * expected[:, axis], atol=1e-3)
    assert found.method == f"PCA, {100 * other.explained_variance_ratio_.sum():.0f} % of the variance"
    centred = rows.numpy() - rows.numpy().mean(0)
    values = np.linalg.svd(centred.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(singular_values(rows).numpy()[:30], values[:30], rtol=1e-5, atol=1e-6)


def test_features_of_one_dimension_have_a_map():
    assert pca(F.normalize(torch.randn(20, 1))).points.shape == (20, 2)


@pytest.fixture
def vectors(tmp_path):
    """A run on vectors, by parts of a package of one's own."""
    package = types.ModuleType("vectorpkg")
    package.vectors = lambda: vector_dataset()
    package.vectors = types.FunctionType(package.vectors.__code__, globals(), "vectors")
    package.vectors.__annotations__ = {"return": Dataset}
    sys.modules["vectorpkg"] = package
    allow(["vectorpkg"])
    config = compose(
        "encoder=mlp", "views=columns", "train.steps=3", "train.batch_size=16", "log.every=1", "device=cpu"
    )
    config.dataset.node = {"_target_": "vectorpkg.vectors"}
    config.plugins = ["vectorpkg"]
    run(config, tmp_path / "r")
    yield tmp_path / "r"
    allow([])
    del sys.modules["vectorpkg"]


def test_data_without_pictures_leave_the_sections_out(vectors):
    document = parsed(vectors / "report.html")
    sections = {e.get("id") for e in document.iter(f"{HTML}section")}
    assert {"curves", "embedding", "commands", "config"} <= sections
    assert not {"views", "reconstructions", "neighbours", "patches"} & sections
    assert not list(document.iter(f"{HTML}img"))


def test_a_page_that_cannot_be_written_costs_the_run_nothing(tmp_path, capsys):
    (tmp_path / "r" / "report.html").mkdir(parents=True)
    (tmp_path / "r" / "train.log").write_text("")
    run(compose(*DATA, "probe=none"), tmp_path / "r")
    captured = capsys.readouterr()
    assert captured.err.count("warning: report.html could not be written") == 1
    assert json.loads((tmp_path / "r" / "result.json").read_text())["steps"] == 6
    assert "none, see the warning" in captured.out


def test_without_the_extra_a_run_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run(compose(*DATA, "probe=none"), tmp_path / "r")
    captured = capsys.readouterr()
    assert captured.out.count("pip install 'sslcli[report]'") == 1 and "report.html" not in captured.err
    assert (tmp_path / "r" / "result.json").is_file() and not (tmp_path / "r" / "report.html").exists()
    with pytest.raises(UserError, match=r"pip install 'sslcli\[report\]'"):
        rewritten(tmp_path / "r")


def test_a_run_that_wants_no_page_gets_none(tmp_path, capsys):
    run(compose(*DATA, "probe=none", "log.report=false"), tmp_path / "r")
    assert not (tmp_path / "r" / "report.html").exists() and "ssl-report run=" in capsys.readouterr().out


def test_what_was_evaluated_since_is_on_the_page_written_again(infonce, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(infonce, folder)
    flat = {"value": 0.5, "std": 0.01, "random_init": 0.25, "protocol": "flat"}
    deep = {"value": 0.75, "controls": {"raw_input": 0.125}, "protocol": "deep", "split": "test", "seed": 3}
    evaluated = {"step": 6, "metrics": {"knn_top1": flat, "linear": {"cifar10": {"linear_top1": deep}}}}
    (folder / "eval.json").write_text(json.dumps(evaluated))
    rewritten(folder)
    rows = [[words(cell) for cell in row] for row in parsed(folder / "report.html").iter(f"{HTML}tr")]
    assert ["knn_top1", "50.00 %, std 1.00 %", "random_init 25.00 %", "+25.00 points against random_init; flat"] in rows
    against = "+62.50 points against raw_input; deep; seed 3"
    assert ["linear/cifar10/linear_top1", "75.00 %", "raw_input 12.50 %", against] in rows
    assert [name for name, _ in readings(evaluated)] == ["metrics/knn_top1", "metrics/linear/cifar10/linear_top1"]


def test_a_run_whose_data_are_gone_still_has_its_curves(infonce, tmp_path):
    folder = tmp_path / "r"
    shutil.copytree(infonce, folder)
    (checkpoint,) = (folder / "checkpoints").glob("*.pt")
    state = torch.load(checkpoint, weights_only=True)
    state["config"]["dataset"] = {"_target_": "sslcli.data.pictures.images.images", "path": "/nowhere"}
    torch.save(state, checkpoint)
    for name in ("result.json", "train.log"):
        (folder / name).unlink()
    (folder / "bad_samples.txt").write_text("a.png\tno picture\n")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    rewritten(folder, output=str(tmp_path / "page.html"))
    document = parsed(tmp_path / "page.html")
    assert "dataset.path: there is no folder /nowhere" in words(document)
    assert "6 steps so far; not finished" in words(document) and "a.png no picture" in words(document)
    assert len(list(section(document, "curves").iter(f"{SVG}svg"))) > 4


def test_a_run_without_a_checkpoint_yet_has_a_page(infonce, tmp_path):
    shutil.copytree(infonce, tmp_path / "r")
    shutil.rmtree(tmp_path / "r" / "checkpoints")
    document = parsed(rewritten(tmp_path / "r"))
    assert "there is no run with a checkpoint" in words(document)
    sections = [e.get("id") for e in document.iter(f"{HTML}section")]
    assert sections == ["result", "curves", "commands", "config"]


def test_warnings_of_the_log_come_first_and_each_once(infonce, tmp_path):
    shutil.copytree(infonce, tmp_path / "r")
    with (tmp_path / "r" / "train.log").open("a") as file:
        file.write("warning: loss <b>at</b> chance\nstep 7\nwarning: busy\nwarning: loss <b>at</b> chance\n")
    document = parsed(rewritten(tmp_path / "r"))
    assert next(document.iter(f"{HTML}section")).get("id") == "warnings"
    found = [words(item) for item in section(document, "warnings").iter(f"{HTML}li")]
    assert found == ["loss <b>at</b> chance", "busy"]


def test_names_are_text_and_not_markup(infonce, tmp_path):
    folder = tmp_path / '<b>&"x"'
    shutil.copytree(infonce, folder)
    config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    config["encoder"]["name"] = "<script>alert(1)</script>"
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    page = rewritten(folder)
    document = parsed(page)
    assert not list(document.iter(f"{HTML}script")) and not list(document.iter(f"{HTML}b"))
    assert words(next(document.iter(f"{HTML}h1"))) == "InfoNCE, <script>alert(1)</script>, synthetic"


def test_the_commands_can_be_pasted(infonce):
    import shlex

    shown = [words(e) for e in section(parsed(infonce / "report.html"), "commands").iter(f"{HTML}pre")]
    assert shlex.split(shown[1]) == ["ssl-eval", f"run={infonce}"]
    program, flag, code = shlex.split(shown[3])
    assert (program, flag) == ("python", "-c")
    scope = {}
    exec(code, scope)
    assert scope["encoder"].dim == sslcli.load(infonce).dim


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    for job, (temperature, seed) in enumerate([(0.1, 0), (0.5, 0), (0.1, 1)]):
        words_ = (f"objective.temperature={temperature}", f"seed={seed}", "log.report=false", f"probe.k={5 + job}")
        run(compose(*DATA, *words_[: 2 if job < 2 else 4], "log.report=false"), folder / str(job))
    return folder


def table(document):
    """One mapping for each run, from the names of the columns of all tables to the cells."""
    rows = []
    for found in document.iter(f"{HTML}table"):
        head = [words(cell[0]) for cell in found.iter(f"{HTML}th")]
        rows.append([dict(zip(head, row)) for row in found.find(f"{HTML}tbody")])
    return [{name: cell for part in parts for name, cell in part.items()} for parts in zip(*rows)]


def heads(document):
    """What the heads of the columns say beside their names."""
    cells = [cell for cell in document.iter(f"{HTML}th") if len(cell)]
    return {words(cell[0]): [words(part) for part in cell[1:]] for cell in cells}


KNN = ["knn_top1", "knn_balanced_accuracy", "knn_macro_f1", "knn_whitened_top1"]


@pytest.mark.slow
def test_a_sweep_is_compared_by_what_differs(sweep):
    page = rewritten(sweep)
    assert page == sweep / "comparison.html"
    document = parsed(page)
    rows = table(document)
    settings, names = ["objective.temperature", "probe.k", "seed"], KNN
    free = ["rankme", "alignment", "uniformity", "dimension_std"]
    assert list(rows[0]) == ["run", "knn_top1", "loss", *settings, *names[1:], *free]
    for job, row in enumerate(rows):
        result = json.loads((sweep / str(job) / "result.json").read_text())["metrics"]
        config = OmegaConf.load(sweep / str(job) / "config.yaml")
        assert words(row["run"]) == str(job)
        assert float(words(row["objective.temperature"])) == config.objective.temperature
        assert int(words(row["seed"])) == config.seed
        for name, metric in result.items():
            assert row[name].get("data-sort") == repr(metric["value"])
            if name in names:  # the best baseline and the protocol, as these differ, are the other lines of the cell
                error, best = metric["standard_error"], max((*INPUTS, "random_init"), key=lambda b: metric[b])
                gain = percent(metric["value"] - metric[best], metric["gain_standard_error"], sign="+")
                shown, against = percent(metric["value"], error), percent(metric[best], error).partition(" ")[0]
                assert words(row[name]) == (
                    f"{shown} % best baseline {best} {against} %, difference {gain.replace('-', '−')} points "
                    f"{metric['protocol']}"
                )
        last = json.loads((sweep / str(job) / "metrics.jsonl").read_text().splitlines()[-1])
        assert row["loss"].get("data-sort") == repr(last["loss"])
        difference = f"{last['loss'] - last['chance']:+.4f}".replace("-", "−")
        assert words(row["loss"]).endswith(f"best baseline chance {last['chance']:.4f}, difference {difference}")
    said = heads(document)
    assert said["knn_top1"] == ["not ranked, see below", "higher is better"]
    assert (
        said["alignment"][0] == "lower is better"
        and "mean squared distance of two random views" in said["alignment"][1]
    )
    assert said["seed"] == []
    text = words(document)
    assert f"{', '.join(KNN)}: shown but not ranked, as the runs were measured by different protocols" in text
    assert "loss: shown but not ranked, as the runs differ in objective.temperature" in text
    losses = next(svg for svg in document.iter(f"{SVG}svg") if svg.get("aria-label").startswith("loss"))
    assert [e.get("id")[-4:] for e in losses.iter(f"{SVG}g") if "-run" in e.get("id", "")] == ["run0", "run1", "run2"]
    marked = {name for row in rows for name, cell in row.items() for e in cell if e.get("class") == "mark"}
    assert marked == set(free)


def test_a_list_of_runs_of_different_kinds(sweep, infonce, simmim, tmp_path):
    unfinished = tmp_path / "unfinished"
    shutil.copytree(sweep / "0", unfinished)
    (unfinished / "result.json").unlink()
    output = tmp_path / "page.html"
    rewritten(None, run=[str(infonce), str(simmim), str(unfinished)], output=str(output))
    document = parsed(output)
    rows = table(document)
    assert [words(row["objective"]) for row in rows] == ["InfoNCE", "SimMIM", "InfoNCE"]
    assert not [name for name in rows[0] if name.startswith(("objective.mask", "run_dir", "log."))]
    assert "loss: shown but not ranked, as the runs differ in objective" in words(document)
    assert words(rows[2]["knn_top1"]) == "–" and "Not finished: " in words(document)
    links = dict.fromkeys(a.get("href") for a in document.iter(f"{HTML}a"))  # each table has them
    assert [(tmp_path / link).resolve() for link in links] == [infonce / "report.html", simmim / "report.html"]


def test_what_is_no_run_is_said_in_one_line(tmp_path, infonce):
    (tmp_path / "empty").mkdir()
    for given, expected in (
        (None, "run is needed"),
        ([], "run is needed"),
        (str(tmp_path / "empty"), "neither a run nor a folder of runs"),
        ([str(infonce), str(tmp_path / "nowhere")], "neither a run nor a folder of runs"),
    ):
        with pytest.raises(UserError, match=expected):
            rewritten(None, run=given)
    with pytest.raises(UserError, match="output: .* cannot be written"):
        rewritten(infonce, output=str(infonce / "config.yaml" / "page.html"))
