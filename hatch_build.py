"""Puts the accelerator into a wheel, or beside an editable install, where KPY_NATIVE=1 asks for it.

Otherwise the wheel is pure Python, is the same on every platform, and needs no compiler.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if os.environ.get("KPY_NATIVE") != "1":
            return
        # By its path, because a build has nothing of the project on its own.
        spec = importlib.util.spec_from_file_location("native", Path(self.root, "protocol", "native.py"))
        native = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(native)
        native.compile_in_place()
        if version != "editable":
            build_data["force_include"][str(native.TARGET)] = f"kpy/{native.TARGET.name}"
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
