"""One battery for every store."""

from collections.abc import Callable
from pathlib import Path

import pytest

from medgem_node import plug
from medgem_node.errors import ConfigError, NotStored
from medgem_node.seams import Store

MEMBERS: dict[str, Callable[[Path], str]] = {"local": lambda folder: (folder / "a store").as_uri()}


@pytest.fixture(params=MEMBERS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return MEMBERS[request.param](tmp_path)


@pytest.fixture
def store(url: str) -> Store:
    return plug.open_store(url)


def test_what_was_put_is_got(store: Store) -> None:
    store.put("a/b.dcm", b"bytes")

    assert store.get("a/b.dcm") == b"bytes"
    assert store.exists("a/b.dcm")


def test_a_second_put_replaces_whole(store: Store) -> None:
    store.put("a/b", b"a long first content")
    store.put("a/b", b"short")

    assert store.get("a/b") == b"short"


def test_what_was_not_put_is_not_stored(store: Store) -> None:
    with pytest.raises(NotStored):
        store.get("a/b")
    assert not store.exists("a/b")


def test_a_folder_is_no_key(store: Store) -> None:
    store.put("a/b", b"x")

    assert not store.exists("a")
    with pytest.raises(NotStored):
        store.get("a")


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "a b", ".hidden", "a\0b", "x.part"])
def test_no_key_leaves_the_root(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="malformed key"):
        store.put(key, b"x")
    with pytest.raises(ValueError, match="malformed key"):
        store.get(key)


def test_a_prefix_is_deleted_with_all_below_it(store: Store) -> None:
    for key in ("jobs/1/a", "jobs/1/b/c", "jobs/2/a"):
        store.put(key, b"x")

    assert store.delete("jobs/1") == 2
    assert sorted(store.keys("jobs")) == ["jobs/2/a"]
    assert store.delete("jobs/1") == 0


def test_another_opening_of_the_same_url_sees_it(store: Store, url: str) -> None:
    store.put("a", b"x")

    assert plug.open_store(url).get("a") == b"x"


def test_a_put_that_was_cut_short_leaves_no_key(tmp_path: Path) -> None:
    store = plug.open_store(tmp_path.as_uri())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0123456789abcdef.part").write_bytes(b"half")

    assert list(store.keys("")) == []


@pytest.mark.parametrize("name", ["../evil", "os.path", "", "Local", "none"])
def test_only_members_are_loaded(name: str) -> None:
    with pytest.raises(ConfigError):
        plug.load("stores", name)
