"""A self-signed certificate for 127.0.0.1, made by ``openssl``, and TLS contexts for the server and the client."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from functools import cache
from pathlib import Path
from threading import Lock

from . import services

needs_openssl = services.needs("openssl", shutil.which("openssl") is not None)

#: The threads of the server and the client may ask at the same time; both must get the same certificate.
_lock = Lock()


def certificate() -> tuple[str, str]:
    """Return the files of the certificate and its key; create them at the first call."""
    with _lock:
        return _certificate()


@cache
def _certificate() -> tuple[str, str]:
    directory = Path(os.environ["TEST_DIRECTORY"])
    files = str(directory / "certificate.pem"), str(directory / "key.pem")
    command = "openssl req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=127.0.0.1"
    extensions = "subjectAltName=IP:127.0.0.1", "keyUsage=critical,digitalSignature,keyCertSign"
    options = [option for extension in extensions for option in ("-addext", extension)]
    subprocess.run([*command.split(), *options, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


@cache
def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate())
    return context


@cache
def client_context() -> ssl.SSLContext:
    """Return the context of ``ssl.create_default_context()``, trusting only this certificate."""
    return ssl.create_default_context(cafile=certificate()[0])
