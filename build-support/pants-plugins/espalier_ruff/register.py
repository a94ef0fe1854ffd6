"""ruff as linter, fixer and formatter.

Pants 2.17's own backend calls `ruff FILES`, which today's ruff refuses, and knows no `ruff format`.
This one keeps its options and targets and brings three requests: `./pants lint` runs `ruff check`
and compares formatting, `./pants fix` applies what ruff can mend, `./pants fmt` formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable

from pants.backend.python.lint.ruff import skip_field, subsystem
from pants.backend.python.lint.ruff.subsystem import Ruff, RuffFieldSet
from pants.backend.python.util_rules import pex
from pants.backend.python.util_rules.pex import PexRequest, VenvPex, VenvPexProcess
from pants.core.goals.fix import FixResult, FixTargetsRequest
from pants.core.goals.fmt import FmtResult, FmtTargetsRequest
from pants.core.goals.lint import LintResult, LintTargetsRequest
from pants.core.util_rules.config_files import ConfigFiles, ConfigFilesRequest
from pants.core.util_rules.partitions import PartitionerType
from pants.core.util_rules.source_files import SourceFiles, SourceFilesRequest
from pants.engine.fs import Digest, MergeDigests, Snapshot
from pants.engine.process import FallibleProcessResult
from pants.engine.rules import Get, MultiGet, Rule, collect_rules, rule
from pants.util.logging import LogLevel
from pants.util.meta import classproperty


class RuffCheckRequest(LintTargetsRequest):
    """`ruff check`."""

    field_set_type = RuffFieldSet
    tool_subsystem = Ruff
    partitioner_type = PartitionerType.DEFAULT_SINGLE_PARTITION


class RuffFixRequest(FixTargetsRequest):
    """`ruff check --fix`; what it would mend is a finding of `RuffCheckRequest` already."""

    field_set_type = RuffFieldSet
    tool_subsystem = Ruff
    partitioner_type = PartitionerType.DEFAULT_SINGLE_PARTITION
    enable_lint_rules = False

    @classproperty
    def tool_name(cls) -> str:
        return "ruff check --fix"


class RuffFormatRequest(FmtTargetsRequest):
    """`ruff format`."""

    field_set_type = RuffFieldSet
    tool_subsystem = Ruff
    partitioner_type = PartitionerType.DEFAULT_SINGLE_PARTITION

    @classproperty
    def tool_name(cls) -> str:
        return "ruff format"

    @classproperty
    def tool_id(cls) -> str:
        return "ruff-format"


@dataclass(frozen=True)
class RuffProcess:
    """One call of ruff on some files."""

    command: tuple[str, ...]
    files: Snapshot


@rule(level=LogLevel.DEBUG)
async def run_ruff(request: RuffProcess, ruff: Ruff) -> FallibleProcessResult:
    ruff_pex, config = await MultiGet(
        Get(VenvPex, PexRequest, ruff.to_pex_request()),
        Get(ConfigFiles, ConfigFilesRequest, ruff.config_request(request.files.dirs)),
    )
    digest = await Get(Digest, MergeDigests((request.files.digest, config.snapshot.digest)))
    return await Get(
        FallibleProcessResult,
        VenvPexProcess(
            ruff_pex,
            # The cache would be written into the sandbox and thrown away.
            argv=(*request.command, "--no-cache", *ruff.args, *request.files.files),
            input_digest=digest,
            output_files=request.files.files,
            description=f"Run ruff {request.command[0]} on {len(request.files.files)} files.",
            level=LogLevel.DEBUG,
        ),
    )


@rule(desc="Lint with ruff", level=LogLevel.DEBUG)
async def ruff_check(request: RuffCheckRequest.Batch[RuffFieldSet, Any]) -> LintResult:
    sources = await Get(SourceFiles, SourceFilesRequest(item.source for item in request.elements))
    result = await Get(FallibleProcessResult, RuffProcess(("check",), sources.snapshot))
    return LintResult.create(request, result, strip_chroot_path=True)


@rule(desc="Fix with ruff", level=LogLevel.DEBUG)
async def ruff_fix(request: RuffFixRequest.Batch) -> FixResult:
    command = ("check", "--fix", "--exit-zero", "--silent")
    result = await Get(FallibleProcessResult, RuffProcess(command, request.snapshot))
    _refuse_failure(result)
    return await FixResult.create(request, result, strip_chroot_path=True)


@rule(desc="Format with ruff", level=LogLevel.DEBUG)
async def ruff_format(request: RuffFormatRequest.Batch) -> FmtResult:
    result = await Get(FallibleProcessResult, RuffProcess(("format",), request.snapshot))
    _refuse_failure(result)
    return await FmtResult.create(request, result, strip_chroot_path=True)


def _refuse_failure(result: FallibleProcessResult) -> None:
    """A file that ruff cannot parse must not pass for one that needs no change."""
    if result.exit_code:
        raise ValueError(f"ruff failed: {result.stderr.decode().strip()}")


def rules() -> Iterable[Rule]:
    """The backend's rules."""
    return (
        *collect_rules(),
        *RuffCheckRequest.rules(),
        *RuffFixRequest.rules(),
        *RuffFormatRequest.rules(),
        *pex.rules(),
        *skip_field.rules(),
        *subsystem.rules(),
    )
