"""Puts the accelerator into a wheel, or beside an editable install, where a C compiler works.

KPY_NATIVE=0 leaves it out: the wheel is then pure Python and the same on every platform. So it is, after a line that
says why, where nothing can be compiled. With KPY_NATIVE=1 that is an error.
"""

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface):
    work_dir: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # By its path, because a build has nothing of the project on its own.
        spec = importlib.util.spec_from_file_location("native", Path(self.root, "protocol", "native.py"))
        native = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(native)
        if version == "editable":
            native.compile_as_asked(native.TARGET)
            return
        # Not beside the sources: who builds a wheel has not asked for another kpy in the checkout.
        self.work_dir = Path(tempfile.mkdtemp(prefix="kpy-native-"))
        target = self.work_dir / native.TARGET.name
        if native.compile_as_asked(target):
            build_data["force_include"][str(target)] = f"kpy/{target.name}"
            build_data["pure_python"] = False
            build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self.work_dir is not None:
            shutil.rmtree(self.work_dir)
