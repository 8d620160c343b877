"""Puts what is compiled into a wheel: the accelerator in C, and the modules of hot_modules.py, where that works.

KPY_NATIVE=0 leaves both out: the wheel is then pure Python and the same on every platform. So it is, after a line that
says why, where nothing can be compiled. With KPY_NATIVE=1 that is an error. An editable install gets the accelerator
alone.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface):
    work_dir: Path | None = None

    def dependencies(self) -> list[str]:
        return [] if os.environ.get("KPY_NATIVE") == "0" else ["mypy[mypyc]>=2.0"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # A build has nothing of the project on its own.
        sys.path.insert(0, self.root)
        import hot_modules
        from protocol import native

        if version == "editable":
            native.compile_as_asked(native.TARGET)
            return
        # Not beside the sources: who builds a wheel has not asked for another kpy in the checkout.
        self.work_dir = Path(tempfile.mkdtemp(prefix="kpy-native-"))
        accelerator = Path("kpy", native.TARGET.name)
        Path(self.work_dir, "kpy").mkdir()
        if native.compile_as_asked(self.work_dir / accelerator):
            compiled = [accelerator, *hot_modules.compile_as_asked(self.work_dir)]
            build_data["force_include"] |= {str(self.work_dir / path): str(path) for path in compiled}
            build_data["pure_python"] = False
            build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self.work_dir is not None:
            shutil.rmtree(self.work_dir)
