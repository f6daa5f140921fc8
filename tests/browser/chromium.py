"""Headless Chromium, as Debian packages it with its driver, and a web server that counts its connections."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from typing import Any

try:
    from selenium import webdriver
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait
except ImportError:  # only the environment "browser" installs it
    webdriver = Keys = WebDriverWait = None

CHROMIUM, DRIVER = "chromium", "chromedriver"


def reason_to_skip() -> str:
    """Return why the tests cannot run; "" if they can, or if they must, since CI and TEST_BROWSER are set."""
    if not os.environ.get("TEST_BROWSER"):
        return "TEST_BROWSER is not set"
    missing = [name for name in (CHROMIUM, DRIVER) if not shutil.which(name)] + ["selenium"] * (webdriver is None)
    return f"{', '.join(missing)} missing" if missing and not os.environ.get("CI") else ""


def start(dark: bool = False) -> Any:
    """Start Chromium and return its driver."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"):
        options.add_argument(argument)
    if dark:
        options.add_argument("--force-dark-mode")
    service = webdriver.ChromeService(executable_path=shutil.which(DRIVER))
    return webdriver.Chrome(options=options, service=service)


class RemoteServer:
    """A web server that a mail refers to; counts the connections. A context manager."""

    def __init__(self) -> None:
        #: What was asked for on each connection, the first line.
        self.asked: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> RemoteServer:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(0.2)
                try:
                    self.asked.append(b"")
                    self.asked[-1] = connection.recv(4096).partition(b"\r")[0]
                    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nloaded")
                except OSError:
                    continue
