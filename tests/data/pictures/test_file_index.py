"""Which files are found, in which order and with which labels; and when the remembered list is believed."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support.oddities import encoded, make, smooth
from support.settled import cached, settle

from sslcli.data.pictures.file_index import Index, index
from sslcli.data.pictures.folders import Folder, in_order
from sslcli.data.pictures.images import images
from sslcli.data.pictures.same_files import first_names
from sslcli.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "sslcli"


def touch(folder, *names):
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(folder, **options):
    """The paths from the folder, in the order of the index."""
    got = index(str(folder), **options)
    return [os.path.relpath(got.source(i), folder) for i in range(len(got))]


def untouched(monkeypatch, cache, place):
    """From here on nothing may be scanned."""

    def scan(*_):
        raise AssertionError(f"scanned; cached: {cached(cache)}, now: {place.stat()}")

    monkeypatch.setattr("sslcli.data.pictures.file_index.scan", scan)


# --- what is found ----------------------------------------------------------------------------------


def test_the_order_is_that_of_the_paths_whatever_the_file_system_lists_first(tmp_path):
    names = ["b/x.png", "b.png", "a/z/1.png", "a/y.png", "a.d/x.png", "a/zz.png", "c/d/e/f.png", "a-b.png", "a/z.png"]
    for k, folder in enumerate((names, names[::-1])):
        touch(tmp_path / str(k), *folder)
        assert found(tmp_path / str(k)) == [str(path) for path in sorted(map(Path, names))]


def test_a_million_paths_take_two_arrays_and_labels(tmp_path):
    """Not a list of strings, which forked workers would copy: the same layout with fewer files."""
    touch(tmp_path, *(f"{k % 7}/{k:04}.jpg" for k in range(2000)))
    got = index(str(tmp_path))
    assert {type(value) for value in vars(got.paths).values()} == {bytes, np.ndarray}
    assert len(got.paths.blob) == 2000 * len("0/0000.jpg") and got.paths.blob.dtype == np.uint8
    assert got.labels.tolist() == sorted(k % 7 for k in range(2000))


def test_links_to_folders_are_followed_once_and_loops_end(tmp_path):
    touch(tmp_path / "pictures", "real/1.png", "other/2.png")
    touch(tmp_path, "far/3.png")
    for name, target in (
        ("a link to real", "real"), ("far", tmp_path / "far"), ("zfar", tmp_path / "far"),
        ("up", ".."), ("other/here", "."),
    ):  # fmt: skip
        (tmp_path / "pictures" / name).symlink_to(target, target_is_directory=True)
    # 'up' leads to the folder above, which holds pictures/ again, and far/, which has been visited as 'far' already.
    assert found(tmp_path / "pictures") == ["far/3.png", "other/2.png", "real/1.png"]


def test_links_to_files_are_followed_and_dangling_ones_passed_over(tmp_path):
    touch(tmp_path, "real.jpg")
    (tmp_path / "link.png").symlink_to("real.jpg")
    (tmp_path / "dangling.png").symlink_to("nowhere")
    (tmp_path / "itself.png").symlink_to("itself.png")
    assert found(tmp_path) == ["link.png"]
    assert found(tmp_path, links="keep") == ["link.png", "real.jpg"]
    notes = dict(index(str(tmp_path)).notes)
    assert notes["links"].startswith("1 more name of files") and notes["left out"].startswith("2 named like pictures")


def test_a_folder_may_be_given_by_a_link_or_a_relative_path(tmp_path, monkeypatch):
    touch(tmp_path, "real/1.png")
    (tmp_path / "link").symlink_to("real", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    assert found("link") == found("real") == found(".//real/") == ["1.png"]


def test_names_that_are_not_utf8_are_kept_byte_for_byte(tmp_path):
    names = [b"caf\xe9.jpg", b"caf\xc3\xa9.jpg", b"new\nline.jpg", b"\xff\xfe.jpg"]
    try:
        touch(tmp_path, *names)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    got = index(str(tmp_path))
    assert [os.fsencode(os.path.relpath(got.source(i), tmp_path)) for i in range(4)] == sorted(names)
    for i in range(4):
        assert Path(got.source(i)).is_file()


def test_labels_are_parent_folders_names_in_order_and_one_folder_has_none(tmp_path):
    touch(tmp_path, "x/b/1.png", "x/a/1.png", "y/b/1.png", "y/B/1.png")
    assert index(str(tmp_path)).labels.tolist() == [1, 2, 0, 2]  # B, a, b; the paths: x/a, x/b, y/B, y/b
    assert index(str(tmp_path / "x" / "a")).labels is None
    touch(tmp_path, "z/one/1.png", "z/one/two/one/1.png")
    assert index(str(tmp_path / "z")).labels is None


def test_folders_nested_deeper_than_pythons_stack_are_searched():
    """No folders on the disk, as Python's own recursion could not delete them again."""
    depth = 1500
    folders = {b"d/" * k + b"d" if k >= 0 else b"": Folder(0, 1, subfolders=(b"d",)) for k in range(-1, depth)}
    folders[b"d/" * depth + b"d"] = Folder(0, 1, pictures=b"x.png")
    assert [run[:2] for run in in_order(folders)] == [(b"d/" * depth + b"d", [b"x.png"])]


@contextlib.contextmanager
def nobody():
    """Without root's right to read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_folder_is_warned_of_and_skipped_until_it_can_be_read(capfd, monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # where nobody may go
        Path(folder).chmod(0o777)
        with nobody():
            touch(Path(folder), "cache/x", "p/a/1.png", "p/locked/2.png")
            monkeypatch.setenv("XDG_CACHE_HOME", f"{folder}/cache")
            locked = Path(folder, "p", "locked")
            locked.chmod(0)
            for _ in range(2):  # scanned, and from the cache
                assert found(f"{folder}/p") == ["a/1.png"]
                (warning,) = capfd.readouterr().err.splitlines()
                assert "dataset.path" in warning and "p/locked" in warning
            locked.chmod(stat.S_IRWXU)
            assert found(f"{folder}/p") == ["a/1.png", "locked/2.png"]
            assert capfd.readouterr().err == ""
            locked.parent.chmod(0)
            with pytest.raises(UserError, match=r"dataset\.path: .* cannot be read: permission denied"):
                index(f"{folder}/p")
            locked.parent.chmod(stat.S_IRWXU)


# --- which files are pictures, and which are one ----------------------------------------------------


def test_files_of_other_names_are_told_by_their_first_bytes_and_what_is_left_out_is_counted(tmp_path):
    for k, kind in enumerate(("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")):
        (tmp_path / f"{k}").write_bytes(encoded(smooth(5, 5, k), kind))
    for name in ("a.jpe", "b.image", "c.PICT"):
        (tmp_path / name).write_bytes(encoded(smooth(5, 5), "JPEG"))
    for name in ("1.txt", "2.txt", "3.json", "README", "BMW", "P1.not"):
        (tmp_path / name).write_bytes(b"BM and P5 are no pictures")
    touch(tmp_path, ".hidden.png", "empty")
    got = index(str(tmp_path))
    assert len(got) == 10 and got.labels is None
    notes = dict(got.notes)
    pictures = "10 files: 7 without extension, 1 .image, 1 .jpe, 1 .pict, 9 of them by their first bytes"
    assert notes["pictures"] == pictures
    assert notes["left out"] == "no pictures are 7 files: 3 without extension, 2 .txt, 1 .json, 1 .not; 1 hidden"


def test_a_place_without_pictures_is_named_with_what_it_holds(tmp_path):
    touch(tmp_path, "a/1.txt", "a/2.txt", "b/3.json")
    with pytest.raises(UserError, match=rf"dataset\.path: {tmp_path} holds no picture: 3 files: 2 .txt, 1 .json"):
        index(str(tmp_path))


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_names_of_one_file_are_one_sample_in_the_class_of_the_first(tmp_path, kind):
    for k in range(20):
        touch(tmp_path, f"a/{k:02}.png", f"b/{k:02}.png")
        for name, target in ((f"a/l{k:02}.png", f"a/{k:02}.png"), (f"c/{k:02}.png", f"b/{k:02}.png")):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            if kind == "hard":
                (tmp_path / name).hardlink_to(tmp_path / target)
            else:
                (tmp_path / name).symlink_to(tmp_path / target)
    for _ in range(2):  # scanned, and from the cache
        got = index(str(tmp_path))
        assert len(got) == 40 and got.classes == ("a", "b") and got.labels.tolist() == [0] * 20 + [1] * 20
        said = dict(got.notes)["links"]
        assert said.startswith("40 more names") and "20 of them lie in another class" in said
    kept = index(str(tmp_path), links="keep")
    assert len(kept) == 80 and kept.classes == ("a", "b", "c")
    dataset = images(path=str(tmp_path), links="keep", size=4)
    files = [{Path(part.name_of(i)).stat().st_ino for i in range(len(part))} for part in (dataset, dataset.held_out)]
    assert len(files[0]) + len(files[1]) == 40 and not files[0] & files[1] and len(files[1]) > 4
    names = ("a/00.png", "a/00.png", "a/l00.png", "missing.png", "lost.png", "c/01.png")
    (tmp_path / "list.txt").write_text("".join(f"{name}\n" for name in names))
    assert len(index(str(tmp_path / "list.txt"))) == 4


def test_equal_numbers_of_inodes_in_a_listing_are_not_believed(tmp_path):
    """Some file systems give every entry of a listing the same number."""
    names = ["a.png", "b.png", "c.png"]
    touch(tmp_path, *names)
    same = np.full((3, 2), 7, np.uint64)
    assert first_names(same, lambda i: str(tmp_path / names[i])).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("names", "label", "classes", "said"),
    [
        (["cat/images/1.png", "dog/images/2.png"], None, ("cat", "dog"), "topmost"),  # Tiny ImageNet's layout
        (["cat/images/1.png", "dog/images/2.png"], "parent", (), ""),
        (["cat/a/1.png", "cat/b/2.png", "dog/a/3.png", "dog/b/4.png"], None, ("a", "b"), "dataset.label=top"),
        (["cat/a/1.png", "cat/b/2.png", "dog/a/3.png"], "top", ("cat", "dog"), ""),
        (["cat/1.png", "dog/2.png"], None, ("cat", "dog"), ""),
        (["cat/1.png", "dog/2.png"], "top", ("cat", "dog"), ""),
        (["cat/1.png", "dog/2.png"], "none", (), ""),
        (["x/cat/1.png", "x/dog/2.png"], None, ("cat", "dog"), ""),
        (["1.png", "images/2.png"], "top", ("images", "p"), ""),
    ],
)
def test_labels_are_the_folders_that_are_asked_for_and_a_guess_is_said(tmp_path, names, label, classes, said):
    touch(tmp_path / "p", *names)
    (tmp_path / "p" / "list.txt").write_text("".join(f"{name}\n" for name in names))
    for place in (tmp_path / "p", tmp_path / "p" / "list.txt"):
        got = index(str(place), label)
        assert got.classes == classes
        assert said in dict(got.notes).get("labels", "") and bool(said) == ("labels" in dict(got.notes))


# --- a text file of paths ---------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_text_file_names_the_pictures_from_where_it_lies(tmp_path, monkeypatch, encoding, end):
    touch(tmp_path, "lists/b/1.png", "a/2.png")
    lines = ["b/1.png", "", f"{tmp_path}/a/2.png", "   ", "../a/2.png", "b/with space \u00e9.jpg", "3.png"]
    (tmp_path / "lists" / "train.txt").write_bytes(end.join(lines).encode(encoding))
    monkeypatch.chdir("/")
    got = index(str(tmp_path / "lists" / "train.txt"), links="keep")
    assert len(index(str(tmp_path / "lists" / "train.txt"))) == 4  # 2.png is named twice
    wanted = ["b/1.png", "../a/2.png", "../a/2.png", "b/with space \u00e9.jpg", "3.png"]  # in the file's order
    assert [os.path.relpath(got.source(i), tmp_path / "lists") for i in range(len(got))] == wanted
    assert got.labels.tolist() == [1, 0, 0, 1, 2]  # a, b, lists


def test_a_text_file_whose_pictures_share_one_folder_has_no_labels(tmp_path):
    (tmp_path / "list.txt").write_text("a/1.png\na/2.png\n")
    assert index(str(tmp_path / "list.txt")).labels is None


def test_a_file_that_is_no_list_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n  \n")
    (tmp_path / "data.bin").write_bytes(b"\x89PNG\r\n\0\0")
    for name in ("empty.txt", "data.bin"):
        with pytest.raises(UserError, match=rf"dataset\.path: .*{name}.* one path a line"):
            index(str(tmp_path / name))


# --- the remembered list ----------------------------------------------------------------------------


def same(one: Index, other: Index):
    return (
        np.array_equal(one.paths.blob, other.paths.blob)
        and np.array_equal(one.paths.offsets, other.paths.offsets)
        and torch.equal(one.labels, other.labels)
        and one.fingerprint() == other.fingerprint()
    )


def test_the_second_start_reads_the_cache_and_finds_the_same(tmp_path, monkeypatch, cache):
    make(tmp_path / "odd")
    settle(tmp_path / "odd")
    first = index(str(tmp_path / "odd"))
    assert [path.suffix for path in cache.iterdir()] == [".npz"]
    untouched(monkeypatch, cache, tmp_path / "odd")
    assert same(index(str(tmp_path / "odd")), first)
    with pytest.raises(AssertionError, match="scanned"):
        index(str(tmp_path))  # another folder


@pytest.mark.parametrize(
    "change", ["add", "remove", "rename", "add below", "new folder", "add, time put back", "rename, time put back"]
)
def test_a_changed_folder_is_scanned_again(tmp_path, change):
    touch(tmp_path, "a/1.png", "b/2.png")
    assert found(tmp_path) == ["a/1.png", "b/2.png"]
    times = (tmp_path / "b").stat()
    if change in ("add", "add, time put back"):
        touch(tmp_path, "b/3.png")
    elif change == "remove":
        (tmp_path / "b" / "2.png").unlink()
    elif change.startswith("rename"):
        (tmp_path / "b" / "2.png").rename(tmp_path / "b" / "0.png")
    elif change == "add below":
        touch(tmp_path, "b/c/3.png")
    else:
        touch(tmp_path, "c/3.png")
    if change.endswith("time put back"):
        os.utime(tmp_path / "b", ns=(times.st_atime_ns, times.st_mtime_ns))
    else:
        os.utime(tmp_path / "b", ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000_000))  # on coarse clocks, too
    assert (
        found(tmp_path)
        == {
            "add": ["a/1.png", "b/2.png", "b/3.png"],
            "add, time put back": ["a/1.png", "b/2.png", "b/3.png"],
            "remove": ["a/1.png"],
            "rename": ["a/1.png", "b/0.png"],
            "rename, time put back": ["a/1.png", "b/0.png"],
            "add below": ["a/1.png", "b/2.png", "b/c/3.png"],
            "new folder": ["a/1.png", "b/2.png", "c/3.png"],
        }[change]
    )


def test_a_change_behind_a_link_is_noticed(tmp_path):
    touch(tmp_path, "p/a/1.png", "far/2.png")
    (tmp_path / "p" / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    assert found(tmp_path / "p") == ["a/1.png", "link/2.png"]
    touch(tmp_path, "far/3.png")
    assert found(tmp_path / "p") == ["a/1.png", "link/2.png", "link/3.png"]


def test_a_damaged_or_foreign_cache_is_ignored_and_replaced(tmp_path, cache, capfd):
    for folder in ("one", "two"):
        touch(tmp_path / folder, "a/1.png", f"b/{folder}.png")
    foreign = index(str(tmp_path / "two")) and next(cache.iterdir()).read_bytes()
    next(cache.iterdir()).unlink()
    found(tmp_path / "one")
    (place,) = cache.iterdir()
    whole = place.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"one.png")] ^= 1
    objects = tmp_path / "objects.npz"
    np.savez(objects, key=np.array([print], dtype=object))
    for content in (b"", b"junk" * 99, whole[: len(whole) // 2], whole[:-1], bytes(flipped), foreign,
                    objects.read_bytes()):  # fmt: skip
        place.write_bytes(content)
        assert found(tmp_path / "one") == ["a/1.png", "b/one.png"]
        assert place.read_bytes() == whole
    place.unlink()
    place.mkdir()  # cannot be replaced by a file
    capfd.readouterr()
    assert found(tmp_path / "one") == ["a/1.png", "b/one.png"]
    assert len(capfd.readouterr().err.splitlines()) == 1
    assert list(cache.iterdir()) == [place]  # and no temporary file is left


def test_a_cache_that_cannot_be_written_is_warned_of_once_and_no_error(tmp_path, monkeypatch, capfd):
    touch(tmp_path, "p/a/1.png", "file")
    for home in (tmp_path / "file", Path("/proc/nowhere")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        assert found(tmp_path / "p") == ["a/1.png"]
        (warning,) = capfd.readouterr().err.splitlines()
        assert warning.startswith("warning:")


def test_without_the_variable_the_cache_lies_in_the_home_folder(tmp_path, monkeypatch):
    touch(tmp_path, "p/a/1.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):  # the standard says: a relative path is to be ignored
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        found(tmp_path / "p")
    assert [path.suffix for path in (tmp_path / ".cache" / "sslcli").iterdir()] == [".npz"]
    assert not Path("relative").exists()


def test_the_fingerprint_changes_with_a_name_and_not_with_the_place(tmp_path):
    for folder in ("one", "two", "three"):
        touch(tmp_path / folder, "a/1.png", "a/3.png" if folder == "three" else "a/2.png")
    one, two, three = (index(str(tmp_path / folder)).fingerprint() for folder in ("one", "two", "three"))
    assert one == two != three
    touch(tmp_path, "x/ab.png", "y/a", "y/b.png")
    (tmp_path / "1.txt").write_text("ab\nc\n")
    (tmp_path / "2.txt").write_text("a\nbc\n")  # the same bytes in a row
    assert index(str(tmp_path / "1.txt")).fingerprint() != index(str(tmp_path / "2.txt")).fingerprint()
