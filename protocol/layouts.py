"""The layouts of a module's messages, as text: which fields each version has, in what form.

A line is a class, the versions that share the layout, and the form of each slot of the class, in order:

    PartitionProduceData.9-13: ~ i ?r

| | |
|---|---|
| `~` | in front: flexible, so lengths are varints and a tagged section ends the struct |
| `z b h H i q d u` | bool, int8, int16, uint16, int32, int64, float64, uuid |
| `s y r` | string, bytes, records |
| `Name.9` | a struct, in the layout of the line that begins so |
| `[x` | an array of x |
| `?x` | x, or null |
| `3:x` | x in the tagged section, under tag 3 |
| `-` | not in this version |

The generated readers and writers say the same in Python. This is for those who want to know without running them:
the accelerator in native.c, and `kpy decode`, which shows the fields that were sent.
"""

import textwrap

from protocol.grammar import Array, Field, Fixed, Sized, Struct, Type

LINE_LENGTH = 120
"""A longer line goes on in the next, which is indented."""

FIXED = {"?": "z", "16s": "u"}
SIZED = {"str": "s", "bytes": "y", "records": "r"}


class Layouts:
    """The lines of one module, as they come together: inner structs before those that hold them."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str], list[int]] = {}
        """Class and forms, to the versions that have them."""

    def add(self, type_: Struct, version: int, flexible: bool) -> str:
        """Adds what one version of a struct is like, with all below it, and returns the reference to it."""
        forms = ["~"] if flexible else []
        forms += [self._form_of_field(each, version, flexible) for each in type_.fields]
        versions = self._versions.setdefault((type_.name, " ".join(forms)), [])
        if version not in versions:
            versions.append(version)
        return f"{type_.name}.{versions[0]}"

    def _form_of_field(self, declared: Field, version: int, flexible: bool) -> str:
        if version not in declared.versions:
            return "-"
        tag = "" if declared.tag is None else f"{declared.tag}:"
        return tag + self._form(declared.type, version, flexible)

    def _form(self, type_: Type, version: int, flexible: bool) -> str:
        null = "?" if type_.is_null_in(version) else ""
        match type_:
            case Fixed(code=code):
                return FIXED.get(code, code)
            case Sized(python=python, compact=True):
                return null + SIZED[python]
            case Array(element=element):
                return null + "[" + self._form(element, version, flexible)
            case Struct():
                return null + self.add(type_, version, flexible)
            case _:
                raise TypeError(type_)

    def source(self) -> str:
        """The text."""
        seen: set[tuple[str, int]] = set()
        for (name, _), versions in self._versions.items():
            for version in versions:
                if (name, version) in seen:
                    raise ValueError(f"{name} has two layouts in version {version}")
                seen.add((name, version))
        lines = [f"{name}.{_spans(versions)}: {forms}" for (name, forms), versions in self._versions.items()]
        return "\n".join(textwrap.fill(line, LINE_LENGTH, subsequent_indent="    ") for line in lines)


def _spans(versions: list[int]) -> str:
    """0-3,5"""
    parts: list[str] = []
    start = last = versions[0]
    for version in [*versions[1:], -1]:
        if version != last + 1:
            parts.append(f"{start}" if start == last else f"{start}-{last}")
            start = version
        last = version
    return ",".join(parts)
