from __future__ import annotations

from paglets.host.network.diagnostics import LOOK_SECONDS, MeshDiagnostics
from tests.fakes.mesh import VirtualMesh, member


def test_a_peer_that_does_not_answer_is_told_once_and_that_it_is_tried_again() -> None:
    mesh = VirtualMesh()
    early = mesh.start(member("early"), peers=["http://late:8765"])
    mesh.clock.advance(5)
    said: list[str] = []
    remarks = MeshDiagnostics(early.gossip, said.append)
    for now in range(3):
        assert remarks.tick(float(now)) == now + LOOK_SECONDS
    (line,) = said
    assert line.startswith("peer http://late:8765: ")
    assert line.endswith("; this host keeps trying")
    assert line.count("http://late:8765") == 1


def test_what_was_said_is_said_to_be_over() -> None:
    mesh = VirtualMesh()
    early = mesh.start(member("early"), peers=["http://late:8765"])
    mesh.clock.advance(5)
    said: list[str] = []
    remarks = MeshDiagnostics(early.gossip, said.append)
    remarks.tick(0.0)
    mesh.start(member("late"))
    mesh.clock.advance(10)
    for now in (2.0, 4.0):
        remarks.tick(now)
    assert said[1:] == ["peer http://late:8765 works again"]
