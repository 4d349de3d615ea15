"""Where and when figures were measured, as every result says it."""

from __future__ import annotations

import datetime as dt
import os
import platform


def about() -> dict[str, str]:
    """Return the date (UTC) and the machine in words."""
    return {"date": dt.datetime.now(dt.UTC).date().isoformat(), "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"}


def load() -> list[float]:
    """Return the load averages of 1, 5 and 15 minutes."""
    return [round(each, 1) for each in os.getloadavg()]
