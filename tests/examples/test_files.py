import pytest


def contents(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_takes_the_place_of_a_file_and_of_a_folder(example, tmp_path):
    whole = example("files").whole
    for text in ("old", "new"):
        with whole(tmp_path / "a.txt") as new:
            new.write_text(text)
        with whole(tmp_path / "b") as new:
            new.mkdir()
            (new / text).write_text(text)
    assert contents(tmp_path) == ["a.txt", "b/new"]
    assert (tmp_path / "a.txt").read_text() == "new"


def test_an_error_leaves_the_old_one(example, tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with (
        pytest.raises(OSError, match="disk full"),
        example("files").whole(tmp_path / "a.txt") as new,
    ):
        new.write_text("half")
        raise OSError("disk full")
    assert contents(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"
