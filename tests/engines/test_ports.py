"""A taken port is named, with its holder and the setting to change."""

import os
import socket

import pytest

from inferlab.engines.ports import holder, is_free, require_free
from inferlab.errors import LabError


def test_a_taken_port_is_named_with_its_holder_and_the_setting():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        assert f"pid {os.getpid()}" in holder(port)
        with pytest.raises(LabError, match=f"端口 {port} 已被占用") as caught:
            require_free(port, "LAB_API_PORT")
        assert f"LAB_API_PORT={port + 1}" in caught.value.remedy
    assert is_free(port)
    assert holder(port) == ""
