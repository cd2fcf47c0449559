"""Keys: what a token file may say, and what happens when it changes."""

import pytest

from dhdiff_ray.serving.access import Access, first_token, read_keys
from dhdiff_ray.serving.questions import RefusedError

A, B = "a" * 16, "b" * 16


def written(tmp_path, text):
    (tmp_path / "keys").write_text(text)
    (tmp_path / "keys").chmod(0o600)
    return str(tmp_path / "keys")


def test_a_line_is_a_token_or_a_name_and_a_token_or_a_rate_too(tmp_path):
    file = written(tmp_path, f"# keys\n\n{A}\nline {B} 12.5\n")
    assert [(key.name, key.per_minute) for key in read_keys(file, 60)] == [("line 3", 60), ("line", 12.5)]
    assert first_token(file) == A
    assert A not in repr(read_keys(file))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("short\n", "line 1, has 5 characters; make one: openssl"),
        ("# nothing\n", "holds no token"),
        (f"a {A} often\n", "write TOKEN, NAME TOKEN or NAME TOKEN REQUESTS_PER_MINUTE"),
        (f"a {A} -1\n", "line 1: write TOKEN"),
        (f"a {A}\na {B}\n", "line 2: a second key 'a'"),
    ],
)
def test_a_file_that_cannot_be_used_says_which_line(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        read_keys(written(tmp_path, text))
    with pytest.raises(ValueError, match="cannot be read"):
        read_keys(str(tmp_path / "none"))


def test_a_file_that_begins_with_a_mark_is_read(tmp_path):
    assert [key.name for key in read_keys(written(tmp_path, f"\ufeffone {A}\n"))] == ["one"]
    assert first_token(written(tmp_path, f"\ufeff{A}\n")) == A


@pytest.mark.parametrize("mode", [0o666, 0o644, 0o620, 0o602])
def test_a_file_that_others_may_use_is_refused_and_says_what_to_type(tmp_path, mode):
    file = written(tmp_path, f"one {A}\n")
    (tmp_path / "keys").chmod(mode)
    with pytest.raises(ValueError, match=f"mode {mode:o}.*; type: chmod 600"):
        read_keys(file)
    (tmp_path / "keys").chmod(0o440)  # as Kubernetes shows a secret to the group of a pod
    assert len(read_keys(file)) == 1


def test_a_key_is_taken_away_without_a_restart(tmp_path):
    now = [0.0]
    file = written(tmp_path, f"one {A}\ntwo {B}\n")
    access = Access(file, clock=lambda: now[0])
    assert access.admit("GET", {"authorization": f"Bearer {B}"}) == "two"
    written(tmp_path, f"one {A}\n")
    now[0] = 2.0
    with pytest.raises(RefusedError, match="send the endpoint's token"):
        access.admit("GET", {"authorization": f"Bearer {B}"})
    assert access.admit("GET", {"authorization": f"bearer {A}"}) == "one"


@pytest.mark.parametrize("damage", ["gone", "empty", "a slip", "open to others"])
def test_a_file_that_cannot_be_used_any_more_lets_nobody_in_and_is_told_once(tmp_path, damage, caplog):
    now = [0.0]
    file = written(tmp_path, f"one {A}\n")
    access = Access(file, clock=lambda: now[0])
    if damage == "gone":
        (tmp_path / "keys").unlink()
    elif damage == "open to others":
        (tmp_path / "keys").chmod(0o666)
    else:
        written(tmp_path, {"empty": "", "a slip": "oops\n"}[damage])
    for now[0] in (2.0, 4.0, 6.0):
        with pytest.raises(RefusedError, match="no key is valid at present") as refused:
            access.admit("GET", {"authorization": f"Bearer {A}"})
        assert refused.value.status == 401
    assert [record.message[:16] for record in caplog.records] == ["nobody is let in"]
    written(tmp_path, f"one {A}\n")
    now[0] = 8.0
    assert access.admit("GET", {"authorization": f"Bearer {A}"}) == "one"
