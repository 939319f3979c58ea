"""A certificate authority for tests, made with openssl.

ECDSA keys only, since the gateway's listeners take no RSA.
"""

from __future__ import annotations

import pathlib
import subprocess


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr.strip()}")


class CertificateAuthority:
    """Writes ca.crt and ca.key into `folder`, and certificates beside them."""

    def __init__(self, folder: str | pathlib.Path, name: str = "Portcullis test authority"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.certificate = self.folder / "ca.crt"
        self.key = self.folder / "ca.key"
        self._serial = 1
        _openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", str(self.key), "-out", str(self.certificate), "-days", "2",
            "-subj", f"/CN={name}",
            "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip

    def issue(
        self,
        name: str,
        hosts: tuple[str, ...] = ("DNS:localhost", "IP:127.0.0.1"),
        client: bool = False,
        days: int = 2,
    ) -> tuple[pathlib.Path, pathlib.Path]:
        """A certificate for `name`; returns the files of certificate and key."""
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        usage = "clientAuth" if client else "serverAuth"
        lines = ["basicConstraints=CA:FALSE", f"extendedKeyUsage={usage}"]
        if hosts:
            lines.append("subjectAltName=" + ",".join(hosts))
        extensions.write_text("\n".join(lines) + "\n")
        _openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}",
        )  # fmt: skip
        self._serial += 1
        _openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self.key),
            "-set_serial", str(self._serial), "-days", str(days), "-extfile", str(extensions),
            "-out", str(certificate),
        )  # fmt: skip
        key.chmod(0o600)
        return certificate, key
