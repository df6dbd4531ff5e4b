"""The reports of a run outside of the process: one after the other in one log, all equally long."""

from collections.abc import Sequence

from rfho.files import damaged
from rfho.outer import Form, History
from rfho.runs.log import Log


def read_reports(log: Log, forms: Sequence[Form]) -> list[History]:
    """All reports of a log, for each member.

    Args:
        log: where they are.
        forms: of the members, all equally long.

    Raises:
        DataFormatError: the log does not hold whole reports of these members, step after step.
    """
    size, total = forms[0].size, log.place.size
    found = [History() for _ in forms]
    if total % size:
        raise damaged(log.path, f"has {total} bytes, but its reports have {size} each")
    for start in range(0, total, size):
        content = log.read(start, size)
        member = Form.member_of(content)
        if not 0 <= member < len(forms):
            raise damaged(log.path, f"has a report of the member {member} of {len(forms)}")
        report = forms[member].decoded(content)
        if found[member] and report.retries > found[member][-1].retries:
            found[member].cut(max(0, report.step - 1))  # what was taken back
        if report.step != len(found[member]) + 1:
            raise damaged(log.path, f"has step {report.step} after step {len(found[member])}")
        found[member].append(report)
    return found
