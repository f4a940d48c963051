"""Images, built by buildah and kept as archives outside the tree. No registry is involved.

The name of an archive has a digest of all inputs of its image, so an unchanged image is built once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.errors import BuildFailed
from e2e.cluster.node.machine import with_system_path
from e2e.cluster.processes import last_lines, run
from e2e.cluster.progress import Progress

ROOT = Path(__file__).resolve().parents[3]
REGISTRY = "kms-acme.test"
"""A registry that does not exist."""
_LIMIT = 1800.0
_KEPT = 8
# Mounts and processes of a build end with the build.
_PRIVATE = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc")
_PROGRAM = """FROM scratch
COPY program /program
USER 65532:65532
ENTRYPOINT ["/program"]
"""
_BASE = """FROM scratch
ADD base.tar /
"""
_SUITE = "bookworm"
_INCLUDED = "python3,python3-venv,ca-certificates"
_LEFT_OUT = ("dev", "var/cache", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")
SOURCES = (
    "deploy/Containerfile",
    *(".containerignore", "LICENSE", "README.md", "pyproject.toml", "requirements.lock"),
    *("deploy/requirements-build.lock", "deploy/image", "deploy/rbac.yaml"),
    *("acme_server", "crds", "kms", "kms_acme", "operator"),
)
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, slots=True)
class Image:
    """An image reference, as pods use it."""

    reference: str

    @property
    def repository(self) -> str:
        """The reference without its tag."""
        return self.reference.rpartition(":")[0]

    @property
    def tag(self) -> str:
        """The tag."""
        return self.reference.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class BuiltImage(Image):
    """An image with its archive."""

    archive: Path


Build = Callable[["Draft"], None]


class Images:
    """Builds missing images into a cache folder."""

    def __init__(self, cache: Path, progress: Progress, env: Mapping[str, str] = os.environ) -> None:
        self._cache = cache
        self._progress = progress
        self._env = with_system_path(env)

    def program(self, program: Path) -> BuiltImage:
        """An image of a static program. The program's folder is named after a digest of its sources."""

        def build(draft: Draft) -> None:
            shutil.copy(program, draft.folder / "program")
            draft.containerfile(_PROGRAM)

        return self._ensure(program.name, _digest(_PROGRAM, program.parent.name, program.name), build)

    def base(self) -> BuiltImage:
        """A minimal Debian with Python, in place of the official image."""

        def build(draft: Draft) -> None:
            root = draft.folder / "root"
            draft.run("debootstrap", "--variant=minbase", f"--include={_INCLUDED}", _SUITE, root)
            excluded = [f"--exclude=./{each}" for each in _LEFT_OUT]
            draft.run("tar", "-C", root, "--sort=name", *excluded, "-cf", draft.folder / "base.tar", ".")
            shutil.rmtree(root)
            draft.containerfile(_BASE)

        return self._ensure("base", _digest(_BASE, _SUITE, _INCLUDED, *_LEFT_OUT, platform.machine()), build)

    def kms_acme(self, root: Path = ROOT) -> BuiltImage:
        """The image of kms-acme from deploy/Containerfile and the current sources."""
        base = self.base()

        def build(draft: Draft) -> None:
            draft.pull(base)
            draft.build(
                *("--file", root / "deploy" / "Containerfile", "--build-arg", f"BASE={base.reference}"),
                *("--build-arg", "VERSION=0.0.0-test", "--build-arg", f"REVISION={draft.tag}"),
                *("--isolation=chroot", *self._pip(draft)),
                root,
            )

        return self._ensure("kms-acme", _digest(base.tag, *_contents(root)), build)

    def _pip(self, draft: Draft) -> Iterator[str | Path]:
        """Options to let pip in a build trust the CAs of this machine."""
        config = draft.folder / "pip.conf"
        config.write_text("[global]\ncert = /run/secrets/certificates\n", encoding="ascii")
        yield f"--secret=id=pip.conf,src={config}"
        yield f"--secret=id=certificates,src={_CERTIFICATES}"

    def _ensure(self, name: str, key: str, build: Build) -> BuiltImage:
        """The image from the cache. If it is missing, one process builds it, and others wait."""
        folder = self._cache / name
        image = BuiltImage(f"{REGISTRY}/{name}:{key}", folder / f"{key}.tar")
        if not image.archive.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(self._cache / "lock"), tempfile.TemporaryDirectory(dir=folder, prefix=".draft-") as place:
                if not image.archive.exists():
                    self._clear_unfinished()
                    with self._progress.step(f"Building image {image.reference}") as tick:
                        draft = Draft(Path(place), image, self._cache, self._env, tick)
                        build(draft)
                        draft.finish()
                    self._unfinished.unlink()
            _forget_old(folder)
        os.utime(image.archive)  # for _forget_old
        return image

    def _clear_unfinished(self) -> None:
        """Remove the remains of an aborted build from buildah's storage."""
        if self._unfinished.exists():
            shutil.rmtree(self._cache / "storage", ignore_errors=True)
        (self._cache / "storage").mkdir(exist_ok=True)
        self._unfinished.touch()

    @property
    def _unfinished(self) -> Path:
        return self._cache / "unfinished"


class Draft:
    """An image during its build, in its own folder."""

    def __init__(
        self, folder: Path, image: BuiltImage, cache: Path, env: Mapping[str, str], tick: Callable[[], None]
    ) -> None:
        self.folder = folder
        self.tag = image.tag
        self._image = image
        self._buildah = (
            *("buildah", "--storage-driver=vfs"),
            *(f"--root={cache / 'storage'}", f"--runroot={cache / 'storage-run'}"),
        )
        self._env = {**env, "TMPDIR": str(cache / "storage")}  # also has the build caches
        self._tick = tick

    def containerfile(self, text: str) -> None:
        """Build from this Containerfile and the folder."""
        path = self.folder / "Containerfile"
        path.write_text(text, encoding="ascii")
        self.build("--file", path, self.folder)

    def build(self, *arguments: str | Path) -> None:
        """Run `buildah build` with a fixed time stamp, so that equal contents give equal images."""
        self.run(*self._buildah, "build", "--quiet", "--timestamp=0", f"--tag={self._image.reference}", *arguments)

    def pull(self, image: BuiltImage) -> None:
        """Load an archive into buildah."""
        self.run(*self._buildah, "pull", "--quiet", f"oci-archive:{image.archive}")

    def finish(self) -> None:
        """Move the archive to its place atomically, and remove the image from buildah."""
        reference, archive = self._image.reference, self.folder / "image.tar"
        self.run(
            *self._buildah, "push", "--quiet", "--disable-compression", reference, f"oci-archive:{archive}:{reference}"
        )
        self.run(*self._buildah, "rmi", reference)
        archive.rename(self._image.archive)

    def run(self, *command: str | Path) -> None:
        """Run a command of the build.

        Raises:
            BuildFailed: with the end of its output.
        """
        log = self.folder / "log"
        words = [*_PRIVATE, *command]
        words[0] = shutil.which("unshare", path=self._env["PATH"]) or words[0]
        if run(words, log=log, limit=_LIMIT, tick=self._tick, env=self._env) != 0:
            raise BuildFailed(f"Image {self._image.reference} could not be built:\n{last_lines(log, 40)}")


def _contents(root: Path) -> Iterator[str | bytes]:
    """The Containerfile and all files that it uses."""
    for each in map(root.joinpath, SOURCES):
        for path in sorted(each.rglob("*")) if each.is_dir() else [each]:
            if path.is_file() and "__pycache__" not in path.parts:
                yield str(path.relative_to(root))
                yield path.read_bytes()


def _digest(*parts: str | bytes) -> str:
    made = hashlib.sha256()
    for each in parts:
        content = each.encode() if isinstance(each, str) else each
        made.update(len(content).to_bytes(8, "big") + content)
    return made.hexdigest()[:16]


def _forget_old(folder: Path) -> None:
    """Delete old archives."""
    archives = sorted(folder.glob("*.tar"), key=lambda each: each.stat().st_mtime)
    for each in archives[:-_KEPT]:
        each.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock; the kernel frees it when the process ends."""
    with path.open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
