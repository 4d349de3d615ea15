"""Libraries to link with where there is no driver: ``libcuda.so`` and ``libnvidia-ml.so``, from CUDA's headers.

The driver's libraries are of the machine that runs a program, so no wheel has them; NVIDIA's toolkit brings stubs of
them in ``lib64/stubs``. Ours are made here, from the headers that programs are compiled with: each function returns
an error, as those of NVIDIA's stubs do. A program that was linked with one finds the real library when it runs, by
its soname. CUDA 12.4's ``libcuda.so`` has all 625 functions of the driver API that NVIDIA's stub has; only the
debugger's (``cudbg...``) are left out.

Written after the System V ABI (gABI 4.1, chapters 4 and 5; psABI for x86-64) and its supplement for Arm (IHI 0056,
ELF for the Arm 64-bit architecture; instructions after DDI 0487).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from torchstrata.store.layer import PLATFORM

NVML_DECLARED: Final = re.compile(rb"\bnvmlReturn_t\s+DECLDIR\s+(nvml[A-Z]\w*)\s*\(")
"""A function of the management library, as ``nvml.h`` declares it."""

NVML_RENAMED: Final = re.compile(rb"^\s*#\s*define\s+nvml[A-Z]\w*\s+(nvml[A-Z]\w*_v\d+)\s*$", re.MULTILINE)

DECLARED: Final = re.compile(rb"\bCUresult\s+CUDAAPI\s+(cu[A-Z]\w*)\s*\(")
"""A function of the driver API, as ``cuda.h`` and those beside it declare it."""

RENAMED: Final = re.compile(rb"^\s*#\s*define\s+(cu[A-Z]\w*)\s+(?:(__CUDA_API_PT\w+)\()?(cu[A-Z]\w*)\)?\s*$", re.MULTILINE)
"""A macro by which a name in a program becomes another; ``__CUDA_API_PT...`` gives a second for streams per thread."""

PER_THREAD: Final = {b"__CUDA_API_PTDS": b"_ptds", b"__CUDA_API_PTSZ": b"_ptsz"}

HEADER, PROGRAM, SECTION, SYMBOL, ENTRY = 64, 56, 64, 24, 16
"""Bytes of ELF's structures: header, program header, section header, symbol, entry of the dynamic section."""

GLOBAL_FUNCTION: Final = 0x12


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineCode:
    """What a platform's libraries differ in.

    :param machine: ``e_machine`` of ELF's header.
    :param page: bytes of the largest page that its kernels have: segments of different rights share none.
    :param instruction: bytes at whose multiples instructions begin.
    :param code: returns the one function that all names lead to, which returns a status.
    """

    machine: int
    page: int
    instruction: int
    code: Callable[[int], bytes]


X86_64: Final = MachineCode(machine=62, page=0x1000, instruction=1, code=lambda status: b"\xb8" + struct.pack("<I", status) + b"\xc3")
"""``mov eax, status; ret``"""
AARCH64: Final = MachineCode(machine=183, page=0x10000, instruction=4, code=lambda status: struct.pack("<II", 0x5280_0000 | status << 5, 0xD65F_03C0))
"""``movz w0, #status; ret``: a status of 16 bits at most. Kernels of GH200 and GB200 have pages of 64 KiB."""

TARGETS: Final[Mapping[str, MachineCode]] = {"linux/amd64": X86_64, "linux/arm64": AARCH64}


def of_cuda(headers: Sequence[bytes]) -> tuple[str, ...]:
    """Return the names of the driver API that programs compiled with ``headers`` may ask for, sorted.

    That includes older forms, which headers declare beside the newest, and those for streams per thread.
    """
    names: set[bytes] = set()
    for text in headers:
        names |= set(DECLARED.findall(text))
        for name, macro, target in RENAMED.findall(text):
            names |= {name, target, target + PER_THREAD.get(macro, b"")}
    return tuple(sorted(name.decode() for name in names))


def of_nvml(headers: Sequence[bytes]) -> tuple[str, ...]:
    """Return the names of the management library (NVML) that programs compiled with ``headers`` may ask for, sorted."""
    text = b"\n".join(headers)
    return tuple(sorted(name.decode() for name in {*NVML_DECLARED.findall(text), *NVML_RENAMED.findall(text)}))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Section:
    """A part of the file: type, flags, link and info as in its header; ``content`` lies at ``offset``, its address."""

    name: str
    kind: int
    flags: int
    offset: int
    content: bytes
    link: int = 0
    info: int = 0
    entry: int = 0

    def header(self, name: int) -> bytes:
        address = self.offset if self.flags else 0
        return struct.pack("<IIQQQQIIQQ", name, self.kind, self.flags, address, self.offset, len(self.content), self.link, self.info, 8, self.entry)


def library(soname: str, names: Sequence[str], status: int, platform: str = PLATFORM) -> bytes:
    """Return a shared object for ``platform`` that defines ``names`` as functions; it can be linked with, and loaded.

    :param soname: what a program that is linked with it asks the loader for.
    :param status: what each function returns.
    """
    target = TARGETS[platform]
    code = target.code(status)
    strings = _strings((soname, *names))
    hashes, symbols = HEADER + 4 * PROGRAM, len(names) + 1
    table = _aligned(hashes + 4 * (2 + 1 + symbols))
    text = _aligned(table + SYMBOL * symbols + len(strings), target.instruction)
    dynamic = _aligned(text + len(code), target.page)
    sections = (
        _Section(name="", kind=0, flags=0, offset=0, content=b""),
        _Section(name=".hash", kind=5, flags=2, offset=hashes, content=_hash(symbols), link=2, entry=4),
        _Section(name=".dynsym", kind=11, flags=2, offset=table, content=_symbols(names, strings, text, len(code)), link=3, info=1, entry=SYMBOL),
        _Section(name=".dynstr", kind=3, flags=2, offset=table + SYMBOL * symbols, content=strings),
        _Section(name=".text", kind=1, flags=6, offset=text, content=code),
        _Section(name=".dynamic", kind=6, flags=3, offset=dynamic, content=_dynamic(soname, strings, hashes, table, symbols), link=3, entry=ENTRY),
    )
    return _file(sections, target)


def _file(sections: Sequence[_Section], target: MachineCode) -> bytes:
    """Return the file of ``sections``, the dynamic one last; the loader maps it writable, the others executable."""
    dynamic = sections[-1]
    titles = _strings((*(section.name for section in sections), ".shstrtab"))
    end = dynamic.offset + len(dynamic.content)
    names = _Section(name=".shstrtab", kind=3, flags=0, offset=end, content=titles)
    table = _aligned(end + len(titles))
    everything = (*sections, names)
    content = bytearray(table)
    content[:HEADER] = b"\x7fELF\2\1\1" + bytes(9) + _header(target.machine, table, len(everything))
    code = sections[-2].offset + len(sections[-2].content)
    content[HEADER : HEADER + 4 * PROGRAM] = (
        _program(1, 5, 0, code, target.page)
        + _program(1, 6, *_span(dynamic), target.page)
        + _program(2, 6, *_span(dynamic), 8)
        + _program(0x6474E551, 6, 0, 0, 16)
    )
    for section in everything:
        content[section.offset : section.offset + len(section.content)] = section.content or content[section.offset : section.offset]
    names_at = (titles.index(b"\0%b\0" % section.name.encode()) + 1 if section.name else 0 for section in everything)
    return bytes(content) + b"".join(section.header(name) for section, name in zip(everything, names_at, strict=True))


def _header(machine: int, sections: int, count: int) -> bytes:
    return struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, HEADER, sections, 0, HEADER, PROGRAM, 4, SECTION, count, count - 1)


def _span(section: _Section) -> tuple[int, int]:
    return section.offset, len(section.content)


def _program(kind: int, flags: int, offset: int, size: int, align: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, offset, offset, offset, size, size, align)


def _strings(names: Sequence[str]) -> bytes:
    return b"\0" + b"".join(name.encode() + b"\0" for name in names if name)


def _hash(symbols: int) -> bytes:
    """Return a hash table of one bucket, which is a list of all symbols."""
    chain = [*range(2, symbols), 0]
    return struct.pack(f"<{3 + symbols}I", 1, symbols, 1, 0, *chain)


def _symbols(names: Sequence[str], strings: bytes, text: int, size: int) -> bytes:
    index, table = strings.index(names[0].encode() + b"\0"), [bytes(SYMBOL)]
    for name in names:
        table.append(struct.pack("<IBBHQQ", index, GLOBAL_FUNCTION, 0, 4, text, size))
        index += len(name) + 1
    return b"".join(table)


def _dynamic(soname: str, strings: bytes, hashes: int, table: int, symbols: int) -> bytes:
    """Return the dynamic section: DT_SONAME, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT."""
    name = strings.index(soname.encode() + b"\0")
    entries = ((14, name), (4, hashes), (5, table + SYMBOL * symbols), (6, table), (10, len(strings)), (11, SYMBOL), (0, 0))
    return b"".join(struct.pack("<QQ", *entry) for entry in entries)


def _aligned(offset: int, to: int = 8) -> int:
    return -(-offset // to) * to
