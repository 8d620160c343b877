"""A real ext4 in a file, whose power a test can cut: the kernel then drops everything that was not on the disk."""

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compat.harness import require_root, require_tool, unavailable, wait_until

FS_IOC_SHUTDOWN = 0x8004587D
WITHOUT_FLUSHING_THE_JOURNAL = 2
SIZE_BYTES = 256 << 20


class LoopDisk:
    """An ext4 file system in a file of `work_dir`, mounted at `path`. Needs root and loop devices.

    It keeps one loop device from beginning to end: to let the kernel detach one at each unmount and to attach the next
    is a race, after which the file system that was just mounted may answer with errors.
    """

    def __init__(self, work_dir: Path) -> None:
        # A network namespace gets a copy of all mounts, in which one whose power was cut would live on for as long as
        # the namespace does, and be mounted again as it is. A copy of what lies in a shared mount goes with it.
        self._shared = work_dir / "shared"
        self.path = self._shared / "mounted"
        image = work_dir / "disk.img"
        self.path.mkdir(parents=True)
        _run("mount", "--bind", str(self._shared), str(self._shared))
        _run("mount", "--make-shared", str(self._shared))
        with image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        _run(require_tool("mkfs.ext4"), "-q", str(image))
        self._device = _run(require_tool("losetup"), "--find", "--show", str(image)).strip()
        self.mount()

    def mount(self) -> None:
        _run("mount", self._device, str(self.path))

    def cut_power(self) -> None:
        """From now on every call fails, and nothing that is not on the disk yet gets there."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING_THE_JOURNAL))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Returns once the file system is gone everywhere."""
        _run("umount", str(self.path))
        wait_until(self._is_nowhere_mounted, f"{self._device} is free", timeout_s=60)

    def _is_nowhere_mounted(self) -> bool:
        try:
            os.close(os.open(self._device, os.O_RDONLY | os.O_EXCL))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    def close(self) -> None:
        """Gives the loop device back."""
        self.unmount()
        _run("umount", str(self._shared))
        _run("losetup", "--detach", self._device)


@contextmanager
def loop_disk(work_dir: Path) -> Iterator[LoopDisk]:
    """Skips the test where it cannot be; fails it where CI=true promises a complete machine."""
    require_root("a power cut")
    if not Path("/dev/loop-control").exists():
        unavailable("a power cut needs loop devices")
    disk = LoopDisk(work_dir)
    try:
        yield disk
    finally:
        disk.close()


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
    return result.stdout
