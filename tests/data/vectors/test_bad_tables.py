"""Damaged tables and wrong names: one line with the place, or a rule that is counted."""

import numpy as np
import pytest

from sslcli.data.vectors.vectors import vectors
from sslcli.errors import UserError
from sslcli.run_dir.fitted import Fitted

ROWS = "\n".join(f"{i},{i * i % 7},{'xy'[i % 2]}" for i in range(12))
BAD = {
    "empty": (b"", "is empty"),
    "no rows": (b"a,b,c\n", "has a header and no rows"),
    "a column twice": (f"a,b,a\n{ROWS}".encode(), "line 1 has the column 'a' twice"),
    "no header": (ROWS.replace("x", "1").replace("y", "2").encode(), "line 1 has only numbers"),
    "a short row": (f"a,b,c\n{ROWS}\n1,2".encode(), "line 14 has 2 fields, and the header 3"),
    "an open quote": (f'a,b,c\n1,2,"x\n{ROWS}'.encode(), "line 2 has a quote that never closes"),
    "a quote inside": (f'a,b,c\n{ROWS}\n1,2,"x"y'.encode(), "line 14 has a quote"),
    "NUL": (f"a,b,c\n{ROWS}\n1,2,\0".encode(), "line 14 has a NUL byte"),
    "UTF-16": ("a,b,c\n1,2,x".encode("utf-16"), "is UTF-16"),
    "Latin 1": (f"a,b,c\n{ROWS}\n1,2,é".encode("latin1"), "line 14 is no UTF-8 (byte 5 is 0xe9)"),
    "a word among numbers": (f"a,b,c\n{ROWS}\nseven,2,x".encode(), "line 14 has 'seven' in the column 'a'"),
    "decimal commas": (b"a;b\n1,5;2\n2,5;3", "line 2 has '1,5' in the column 'a'. Write decimal points"),
    "all missing": (b"a,b\n,NA\n,?\n", "every column of"),
    "constant": (b"a,b\n1,x\n1,x\n", "every column of"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_one_line_with_the_place(tmp_path, name):
    content, said = BAD[name]
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError) as error:
        vectors(path=str(tmp_path / "t.csv")).fit(Fitted())
    assert said in str(error.value) and "t.csv" in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_byte_order_mark_and_empty_lines_are_passed_over(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfa,b,label\r\n" + ROWS.replace("\n", "\r\n\r\n").encode())
    assert [c.name for c in vectors(path=str(tmp_path / "t.csv")).own] == ["a", "b"]


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"label": "c1"}, r"dataset\.label: .* has no column 'c1'\. Did you mean 'c'\?"),
        ({"split": "part"}, r"dataset\.split: .* has no column 'part'"),
        ({"ignore": ["d"]}, r"dataset\.ignore: .* has no column 'd'"),
        ({"label": "a"}, r"dataset\.label: the column 'a' has 12 values in 12 rows"),
        ({"split": "c"}, r"dataset\.split: the column 'c' has 'x' in row 0"),
        ({"holdout": 1.5}, r"dataset\.holdout: 1\.5 is not a fraction"),
        ({"ignore": ["a", "b", "c"]}, "has no column beside"),
        ({"name": "wine"}, r"dataset\.path: give a table"),
    ],
)
def test_a_wrong_key_is_one_line(tmp_path, keys, said):
    (tmp_path / "t.csv").write_text(f"a,b,c\n{ROWS}")
    with pytest.raises(UserError, match=said):
        vectors(path=str(tmp_path / "t.csv"), **keys)


def test_files_of_numpy_are_never_unpickled(tmp_path):
    np.save(tmp_path / "t.npy", np.array([[{}, 1]], object))
    with pytest.raises(UserError, match="holds Python objects, which are never unpickled"):
        vectors(path=str(tmp_path / "t.npy"))
    np.savez(tmp_path / "t.npz", x=np.zeros((3, 2)), y=np.array([{}, {}, {}], object))
    with pytest.raises(UserError, match="holds Python objects"):
        vectors(path=str(tmp_path / "t.npz"))
    for name, content in (("a.npy", b"no"), ("a.npz", b"PK no"), ("a.parquet", b"PAR1 no"), ("a.xls", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"dataset\.path"):
            vectors(path=str(tmp_path / name))
    with pytest.raises(UserError, match="No such file"):
        vectors(path=str(tmp_path / "none.csv"))


def test_arrays_of_unequal_lengths_are_named(tmp_path):
    np.savez(tmp_path / "t.npz", x=np.zeros((3, 2)), label=np.zeros(4))
    with pytest.raises(UserError, match=r"x \[3, 2\], label \[4\]"):
        vectors(path=str(tmp_path / "t.npz"))


def test_another_table_needs_the_columns_of_the_run(tmp_path):
    (tmp_path / "a.csv").write_text(f"age,b,c\n{ROWS}")
    files = Fitted()
    vectors(path=str(tmp_path / "a.csv")).fit(files)
    trained = Fitted(files.files, complete=True)
    (tmp_path / "b.csv").write_text(f"agee,b,c\n{ROWS}")
    with pytest.raises(UserError, match=r"b\.csv has no column 'age', .* Did you mean 'agee'\?"):
        vectors(path=str(tmp_path / "b.csv")).fit(trained)
    (tmp_path / "c.csv").write_text(f"age,b,c,new\n{ROWS.replace(',x', ',z,1').replace(',y', ',y,2')}")
    notes = vectors(path=str(tmp_path / "c.csv")).fit(trained).notes
    assert ("left out", "not in the run's data: new") in notes
    assert any(word == "unknown" and "6 cells" in text for word, text in notes)
    (tmp_path / "d.csv").write_text("age,b,c\n" + "\n".join(f"w{i},1,x" for i in range(9)))
    with pytest.raises(UserError, match=r"line 2 has 'w0' in the column 'age', which has numbers in the data"):
        vectors(path=str(tmp_path / "d.csv")).fit(trained)
