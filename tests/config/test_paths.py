"""Paths of data and of files beside them: where they are found, and that they name no run."""

from support.helpers import compose

from sslcli.config.identity import settings
from sslcli.config.paths import located


def test_files_beside_the_data_are_found_from_the_folder_of_the_run(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    for name in ("there/x.csv", "there/s.npz", "there/u.csv", "u.csv"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    files = {"path": "x.csv", "split_from": "s.npz", "user_features": "u.csv", "item_features": "gone.csv"}
    dataset = compose("dataset=interactions", *(f"dataset.{key}={name}" for key, name in files.items())).dataset
    found = located(dataset, str(tmp_path / "there")).node
    assert {key: found[key] for key in files} == {
        "path": str(tmp_path / "there/x.csv"),
        "split_from": str(tmp_path / "there/s.npz"),
        "user_features": "u.csv",  # is here
        "item_features": "gone.csv",  # is nowhere, and a trained run does not need it
    }
    assert located(dataset, None) is dataset


def test_a_file_of_features_is_a_place_and_how_it_is_read_is_a_setting():
    of = [settings(compose("dataset=interactions", f"dataset.user_features={name}")) for name in ("a.csv", "b.csv")]
    plain = settings(compose("dataset=interactions"))
    assert of[0] == of[1] == plain and "dataset.ignore" not in plain  # names of runs stay as they were without features
    assert "dataset.ignore" in settings(compose("dataset=vectors"))
    assert settings(compose("dataset=interactions", "dataset.ignore=[x]")) != plain
