"""One battery for every destination."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from medgem_node import part10, plug, testing
from medgem_node.config import Config
from medgem_node.errors import ConfigError, DeliveryFailed
from medgem_node.seams import Destination

Holding = Callable[[], set[str]]


@pytest.fixture(params=["dimse", "folder"])
def destination(
    request: pytest.FixtureRequest, tmp_path: Path, config: Config
) -> Iterator[tuple[Destination, Holding]]:
    with ExitStack() as stack:
        if request.param == "dimse":
            pacs = stack.enter_context(testing.FakePacs())
            yield plug.load("destinations", "dimse").create(pacs.url, config), lambda: set(pacs.instances)
        else:
            folder = tmp_path / "out"
            made = plug.load("destinations", "folder").create(f"folder://{folder}", config)
            yield made, lambda: {str(part10.decode(p.read_bytes()).SOPInstanceUID) for p in folder.iterdir()}


def test_what_was_sent_is_there_when_send_returns(destination: tuple[Destination, Holding]) -> None:
    send_to, holding = destination
    slices = testing.ct_study(3)

    send_to.send(slices)

    assert holding() == {str(s.SOPInstanceUID) for s in slices}


def test_sending_twice_leaves_one_of_each(destination: tuple[Destination, Holding]) -> None:
    send_to, holding = destination
    slices = testing.ct_study(2)

    send_to.send(slices)
    send_to.send(slices)

    assert holding() == {str(s.SOPInstanceUID) for s in slices}


def test_a_folder_that_cannot_be_written_is_a_failure_to_retry(tmp_path: Path, config: Config) -> None:
    made = plug.load("destinations", "folder").create(f"folder://{tmp_path}/out", config)
    (tmp_path / "out").rmdir()
    (tmp_path / "out").write_bytes(b"a file, not a folder")

    with pytest.raises(DeliveryFailed):
        made.send(testing.ct_study(1))


@pytest.mark.parametrize(("name", "url"), [("dimse", "dimse://x"), ("folder", "folder://relative/path")])
def test_a_malformed_address_is_a_config_error(name: str, url: str, config: Config) -> None:
    with pytest.raises(ConfigError):
        plug.load("destinations", name).create(url, config)
