"""Apache with mod_md, which obtains certificates itself and uses them after a restart."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from e2e.cluster import Process
from e2e.stories.sites import visit, wait_for
from e2e.stories.story import SITE_ADDRESS, Story

MODULES = Path("/usr/lib/apache2/modules")
"""Debian's folder of loadable modules."""
_STOP_LIMIT = 20.0
_SURROUNDINGS = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/httpd.pid
ErrorLog {folder}/error.log
Mutex file:{folder} default
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule ssl_module {modules}/mod_ssl.so
LoadModule md_module {modules}/mod_md.so
Listen {address}:{http}
Listen {address}:{https}
MDPortMap http:{http} https:{https}
MDStoreDir {folder}/md
{identity}
"""
_SITE = """
<VirtualHost {address}:{https}>
    ServerName {name}
    SSLEngine on
</VirtualHost>
"""
_AS_ROOT = "User nobody\nGroup nogroup"
"""As root, Apache requires another user for its workers."""


@dataclass(frozen=True)
class Apache:
    """Apache with one site; `configuration` is the user's part for mod_md, the rest comes from distributions."""

    program: Path
    story: Story
    folder: Path
    name: str
    configuration: str

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run it for the duration of the block."""
        places = {
            "folder": self.folder,
            "modules": MODULES,
            "address": SITE_ADDRESS,
            "http": self.story.http01_port,
            "https": self.story.tls_alpn01_port,
            "identity": _AS_ROOT if os.geteuid() == 0 else "",
            "name": self.name,
        }
        file = self.folder / "httpd.conf"
        file.write_text(_SURROUNDINGS.format(**places) + self.configuration + _SITE.format(**places))
        process = Process.start((self.program, "-DFOREGROUND", "-f", file), log=self.log, env=dict(os.environ))
        try:
            yield
        finally:
            process.stop(_STOP_LIMIT)

    @property
    def log(self) -> Path:
        """Its output before it reads its configuration."""
        return self.folder / "output.log"

    def certificate(self) -> x509.Certificate:
        """Wait for a new certificate, restart, and return the certificate that a client of the profile's chain accepts.

        Raises:
            ClientFailed: it gets none in time; the text has the end of its log.
        """
        staged = self.folder / "md" / "staging" / self.name / "pubcert.pem"
        logs = self.log, self.folder / "error.log"
        wait_for(lambda: staged.exists() or None, "Apache has obtained no certificate", *logs)
        os.kill(int((self.folder / "httpd.pid").read_text()), signal.SIGUSR1)
        return wait_for(self._served_certificate, "Apache does not use its certificate", *logs)

    def _served_certificate(self) -> x509.Certificate | None:
        try:
            with visit(self.story, self.name) as (_, certificate):
                return certificate
        except OSError:  # includes ssl.SSLError
            return None


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder that Apache's worker user can enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="kms-acme-apache-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        yield place
