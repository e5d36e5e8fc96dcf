"""docker-compose.yml: three nodes whose command lines our own parser takes, and that fit together."""

import re
import shlex
from pathlib import Path

import pytest

from server.cli.evaluate import Evaluation, evaluate
from server.cli.flag_table import FLAGS
from server.cli.flags import parse
from tests.support.compose_file import ComposeError, Node, parse_compose, read_compose

COMPOSE = read_compose(Path(__file__).parents[3] / "docker-compose.yml")
NODES = ("node-1", "node-2", "node-3")


def services() -> dict[str, dict[str, Node]]:
    """The services of the file by name."""
    found = COMPOSE["services"]
    assert isinstance(found, dict)
    return {name: service for name, service in found.items() if isinstance(service, dict)}


def texts(service: dict[str, Node], key: str) -> list[str]:
    """A list of a service."""
    found = service[key]
    assert isinstance(found, list)
    return found


def command(service: dict[str, Node]) -> list[str]:
    """The words of a service's command."""
    found = service["command"]
    assert isinstance(found, str)
    return shlex.split(found)


def evaluated(service: dict[str, Node]) -> Evaluation:
    """What our command line makes of a service's command."""
    line = parse(command(service), FLAGS)
    assert line.words == ()
    return evaluate(line.given, {})


def test_there_are_three_nodes() -> None:
    """Each service is the node of its name; O274: the commands are the same but for that."""
    assert tuple(services()) == NODES
    for name, service in services().items():
        options = evaluated(service).options
        assert options.cluster is not None
        assert options.cluster.node_id == name
    assert len({re.sub(r"(?<=-cluster_node_id )\S+", "", " ".join(command(one))) for one in services().values()}) == 1


@pytest.mark.parametrize("name", NODES)
def test_command_line_is_valid(name: str) -> None:
    """Our own parser and checks take it, without a warning; peers, routes and directories fit together."""
    evaluation = evaluated(services()[name])
    assert evaluation.warnings == ()
    options = evaluation.options
    assert options.cluster is not None
    assert options.cluster.peers == NODES
    assert options.store == "FILE"
    assert options.route_listen is not None
    assert options.routes == tuple(f"nats://{node}:{options.route_listen.port}" for node in NODES)
    assert options.nats_urls == ()


@pytest.mark.parametrize("name", NODES)
def test_everything_kept_is_on_the_node_s_own_volume(name: str) -> None:
    """O409, O417: store and log outlive the container, and no two nodes share a volume."""
    volumes = COMPOSE["volumes"]
    assert isinstance(volumes, dict)
    (mount,) = texts(services()[name], "volumes")
    volume, place = mount.split(":")
    assert volume in volumes
    assert [volume in " ".join(texts(other, "volumes")) for other in services().values()].count(True) == 1
    options = evaluated(services()[name]).options
    assert options.cluster is not None
    for directory in (options.dir, options.cluster.log_path):
        assert Path(directory).is_relative_to(place)
    assert options.dir != options.cluster.log_path


def test_ports_lead_to_what_the_nodes_listen_on() -> None:
    """Clients and monitoring of each node have a port of this machine of their own, monitoring for this machine only."""
    outside = []
    for service in services().values():
        options = evaluated(service).options
        client, monitoring = texts(service, "ports")
        assert client.split(":")[-1] == str(options.port)
        assert monitoring.startswith("127.0.0.1:")
        assert monitoring.split(":")[-1] == str(options.http_port)
        outside += [client.split(":")[-2], monitoring.split(":")[-2]]
    assert outside == ["4222", "8222", "4223", "8223", "4224", "8224"]


@pytest.mark.parametrize("name", NODES)
def test_containers_are_started_again_and_stopped_in_order(name: str) -> None:
    """A stop hands leadership over and closes the store: more than Docker's 10 seconds may be needed."""
    service = services()[name]
    assert service["image"] == "${STREAMING_IMAGE:-nats-streaming-server}"
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"] == "30s"
    assert service["init"] == "true"


def test_reader_understands_its_part_of_yaml() -> None:
    """Maps, lists, quoted and folded texts, empty values, comments."""
    text = '# c\na:\n  b: x y\n  c: >-\n    -st FILE\n    -dir /d\n\n  d:\n    - "1:2"\n    - e:/f\ng:\n  h:\n  i: ${J:-k}\n'
    assert parse_compose(text) == {
        "a": {"b": "x y", "c": "-st FILE -dir /d", "d": ["1:2", "e:/f"]},
        "g": {"h": None, "i": "${J:-k}"},
    }


@pytest.mark.parametrize(
    "text",
    [
        "a: &b c",
        "a: [b]",
        "a: b # c",
        "a:\n\t- b",
        "a: 'b'",
        'a: "b',
        "a:\n  b: c\n d: e",
        "a: b: c",
        "- a",
        "a",
        "a: 1\na: 2",
    ],
)
def test_reader_refuses_what_it_does_not_understand(text: str) -> None:
    """Nothing is misread in silence."""
    with pytest.raises(ComposeError):
        parse_compose(text)
