"""Keys: what a token file may say, and what happens when it changes."""

import pytest
from fastapi.testclient import TestClient

from dhdiff_ray.config import ServeConfig
from dhdiff_ray.serving.access import Access, first_token, read_keys
from dhdiff_ray.serving.api import make_app
from dhdiff_ray.serving.questions import BusyError, RefusedError

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


class Drawing:
    """Answers with no pairs, or as the category says."""

    async def pairs(self, query):
        if query.category == "busy":
            raise BusyError
        if query.category == "none":
            raise RefusedError(404, "no such category")
        return []


@pytest.fixture
def charged(tmp_path):
    """charged(letter, **question) -> status and Retry-After of an endpoint of 100 steps a minute, 25 by default."""
    now = [0.0]
    file = written(tmp_path, f"one {A}\ntwo {B}\n")
    app = make_app(Drawing(), Access(file, steps_per_minute=100, clock=lambda: now[0]), ServeConfig(max_n=64), 25)
    client = TestClient(app, "http://any")

    def ask(letter, category="mesh", wait=0.0, **question):
        now[0] += wait
        headers = {"authorization": f"Bearer {letter * 16}"}
        answer = client.post(f"/v1/categories/{category}/pairs", json={"defect": "bent", **question}, headers=headers)
        return answer.status_code, answer.headers.get("Retry-After")

    return ask


def test_a_key_may_cost_so_many_steps_a_minute_and_others_are_not_charged_for_it(charged):
    assert charged("a", n=2) == (200, None)
    assert charged("a", n=5, steps=10) == (200, None)
    assert charged("a") == (429, "16")
    assert charged("b") == (200, None)
    assert charged("a", wait=16) == (200, None)


def test_what_was_not_drawn_costs_nothing(charged):
    for _ in range(3):
        assert charged("a", "busy", n=4)[0] == 503
        assert charged("a", "none", n=4)[0] == 404
    assert charged("a", n=4) == (200, None)


def test_more_than_a_minutes_worth_is_drawn_and_then_waited_for(charged):
    assert charged("a", n=12) == (200, None), "300 of 100 steps"
    assert charged("a", wait=119) == (429, "16")
    assert charged("a", wait=17) == (200, None)
    assert charged("b", n=10**300, steps=10**300)[0] == 200, "what is counted has bounds; the sampler refuses the rest"
