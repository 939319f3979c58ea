"""What the harnesses share: servers, a gateway, certificates, reports.

Only Python's standard library (3.11 or newer). A harness in tests/ or bench/
finds it with two lines:

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[N] / "tests/lib"))
    from harness import Gateway, PostgresServer, Report

Everything that is started here is stopped again when its `with` block ends,
when the interpreter exits, and (by the kernel) when the interpreter is killed.
"""

from . import configs as configs
from .certificates import CertificateAuthority
from .endpoint import Endpoint
from .gateway import Gateway, GatewayFailed
from .postgres import PostgresServer, pg18_home, server_user
from .processes import Process, free_port, wait_until
from .report import Report
from .root import ROOT

__all__ = [
    "ROOT",
    "CertificateAuthority",
    "Endpoint",
    "Gateway",
    "GatewayFailed",
    "PostgresServer",
    "Process",
    "Report",
    "configs",
    "free_port",
    "pg18_home",
    "server_user",
    "wait_until",
]
