"""A test that takes ``bundle`` runs once for each folder under ``bundles/``; a new bundle edits no list."""

from __future__ import annotations

import socket

import pytest

from tools.bundle_rules import bundle_folders


def pytest_generate_tests(metafunc):
    if "bundle" in metafunc.fixturenames:
        metafunc.parametrize("bundle", bundle_folders(), ids=lambda folder: folder.name)


@pytest.fixture
def no_network(monkeypatch):
    """Turn every attempt to reach a network into a failure that says what was asked for."""

    def refuse(*arguments, **keywords):
        raise AssertionError(f"the network was asked for: {arguments} {keywords}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
