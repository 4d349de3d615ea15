"""Every fatal error, each with an exit code of its own.

Messages are one line that says what is wrong and one that says what to do; they are printed once, by
:mod:`torchstrata.commands.cli`, never with a traceback. Codes 0, 1, 2 and 124-143 belong to shells and tools and are
    not used.
"""

from __future__ import annotations

from typing import ClassVar, Final

from torchstrata.text import printable

LINE: Final = 1000
"""Characters of a line of an error. What others have said is cut shorter where it is quoted."""

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as shells report it (128 + SIGINT)."""


class TorchstrataError(Exception):
    """A failure that a person can act on.

    Whatever a registry, an index or a program has put into the lines: they are shown as two lines of printable
    characters, so that nothing which is quoted can move the cursor or fake another line.

    :param what: one line: what is wrong.
    :param fix: one line: what to do about it.
    """

    code: ClassVar[int] = 9

    def __init__(self, what: str, *, fix: str) -> None:
        super().__init__(what)
        self.what = printable(what.strip(), LINE)
        self.fix = printable(fix.strip(), LINE)

    def __str__(self) -> str:
        return f"{self.what}\n  -> {self.fix}"


class MatrixError(TorchstrataError):
    """``matrix.yaml`` asks for something that cannot work, or a selection matches nothing."""

    code = 10


class LockError(TorchstrataError):
    """A lock is missing, does not match its inputs, or cannot be resolved."""

    code = 11


class FetchError(TorchstrataError):
    """A wheel or package cannot be found or downloaded."""

    code = 12


class IntegrityError(TorchstrataError):
    """Bytes do not have the digest they must have: a truncated or tampered wheel or blob."""

    code = 13


class StoreError(TorchstrataError):
    """The content store cannot be read or written."""

    code = 14


class DiskFullError(TorchstrataError):
    """There is not enough disk space."""

    code = 15


class EngineError(TorchstrataError):
    """No container engine answers, or it refused what it was asked."""

    code = 16


class BuildxError(TorchstrataError):
    """The engine has no usable buildx."""

    code = 17


class OsPartError(TorchstrataError):
    """An OS part cannot be bootstrapped or built."""

    code = 18


class ComposeError(TorchstrataError):
    """Layers do not fit together: composing them would silently lose files."""

    code = 19


class StaleLockError(LockError):
    """Neither the mirror nor a snapshot archive has a locked OS package, and ``--locked`` was asked for."""

    code = 20


class CommandError(TorchstrataError):
    """A program that was started failed, or is not installed."""

    code = 21


class VerificationError(TorchstrataError):
    """An image failed a test, or a test that must run did not."""

    code = 22


class NoImageError(TorchstrataError):
    """The engine has no such image."""

    code = 23


class EvidenceError(TorchstrataError):
    """There is no record that an image passed its tests, or it cannot be relied on."""

    code = 24


class NoGpuError(TorchstrataError):
    """Somebody asked for tests that need a GPU where no GPU is."""

    code = 25


class EngineLostError(TorchstrataError):
    """The engine died while an image was tested."""

    code = 26


class ContainerError(TorchstrataError):
    """Containers of an image cannot be started, or end at once."""

    code = 27


class SurvivorError(VerificationError):
    """A fault that was planted in an image was not found by the test that must find it."""

    code = 28


class RegistryError(TorchstrataError):
    """A registry cannot be reached, refuses what it was asked, or answers what it must not."""

    code = 30


class RegistryAuthError(RegistryError):
    """A registry wants credentials, or does not accept or allow those that it gets."""

    code = 31


class ImmutableTagError(RegistryError):
    """A tag that never moves already points to something else."""

    code = 32


class AbsentError(RegistryError):
    """A registry does not have what was asked for."""

    code = 33


class SigningError(TorchstrataError):
    """Something cannot be signed: there is no cosign, no key, or not the right password."""

    code = 34


class UntrustedError(TorchstrataError):
    """What must be signed is not, or not by who it must be, or does not say what the registry has."""

    code = 35


class UnverifiedError(UntrustedError):
    """An image has no signed result of its tests, or one that says that it failed."""

    code = 36


class LedgerError(TorchstrataError):
    """The ledger cannot be read or written, or somebody has changed what it said."""

    code = 37


class LedgerConflictError(LedgerError):
    """Somebody else wrote to the ledger at the same moment, and was first."""

    code = 38


class ReleaseError(TorchstrataError):
    """Images may not move, or cannot."""

    code = 39


class NightlyError(TorchstrataError):
    """The nightly run could not do all that it found to do."""

    code = 40


class WatchdogError(TorchstrataError):
    """A channel is older than it may be, lacks an image, or points to one that is gone."""

    code = 41


class PruneError(TorchstrataError):
    """A registry cannot be pruned: it does not delete, or something moved meanwhile."""

    code = 42


class MirrorError(TorchstrataError):
    """Images cannot be copied: they are not there, or not all of one set, or the copy is damaged."""

    code = 43


class AptError(TorchstrataError):
    """apt refused what it was asked: it does not know a package, or its sources or packages are broken."""

    code = 44


class AptLockedError(AptError):
    """Another program held apt's locks for too long."""

    code = 45


class AptUnreachableError(AptError):
    """A mirror of the distribution cannot be reached."""

    code = 46


class NotRootError(TorchstrataError):
    """Something needs root, and this user is not root and has no sudo that asks for no password."""

    code = 47


class VariableError(TorchstrataError):
    """A variable of the environment has a value that cannot be what it is for."""

    code = 48


class OutputError(TorchstrataError):
    """Standard output takes nothing more: its disk is full, or whoever read it has ended."""

    code = 49


class CheckoutError(TorchstrataError):
    """The package is installed outside a checkout, and nothing names one."""

    code = 50


class FlavourError(TorchstrataError):
    """``images/<flavour>`` is not what a flavour must be: its ``flavour.yaml``, its place in the tree, or its files."""

    code = 51


class MachineError(TorchstrataError):
    """A machine is described by what no machine has: no version of a driver, no GPU generation."""

    code = 58


class NoFitError(TorchstrataError):
    """No cell that was asked for runs on the driver and GPUs of a machine."""

    code = 52


class GpuAccessError(TorchstrataError):
    """A machine has a GPU that containers cannot get, or whose driver does not work."""

    code = 53


class DriftError(TorchstrataError):
    """A container is not what its image is."""

    code = 54


class NoContainerError(TorchstrataError):
    """The engine has no such container."""

    code = 55


class ForeignContainerError(TorchstrataError):
    """A container is of an image that is none of ours."""

    code = 56


class FreezeError(TorchstrataError):
    """A container's difference cannot be written down."""

    code = 57


class ImageIndexError(UntrustedError):
    """An index lacks a platform of its row, has one too many, is not canonical; or a tag names one platform alone."""

    code = 59


class BusyPortError(ContainerError):
    """A port of this machine that a container was to have is taken."""

    code = 70


class NameTakenError(ContainerError):
    """A container of that name is there already, and is not what was asked for."""

    code = 71


class OutdatedContainerError(ContainerError):
    """A container is of another image than the one that its tag names now."""

    code = 72


class WorkspaceError(ContainerError):
    """A directory cannot be a container's workspace: it cannot be made, or the container's user cannot write to it."""

    code = 73


class LauncherError(TorchstrataError):
    """A file that starts a container cannot be written, or would not work where it is for."""

    code = 75


class PlatformError(MatrixError):
    """A platform has no wheels, or the row is not offered on it."""

    code = 66


class EmulatorError(TorchstrataError):
    """Programs of another platform cannot run here: QEMU is missing, or the kernel does not know it."""

    code = 67


class CatalogueError(TorchstrataError):
    """Something else lies where a catalogue must go, or its address or measurements are not what they must be."""

    code = 76
